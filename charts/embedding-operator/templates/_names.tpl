{{- /* Names and labels. Labels of the chart win over those of the user: a selector must never stop matching. */}}

{{- define "embedding-operator.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "embedding-operator.fullname" -}}
{{- $name := include "embedding-operator.name" . }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "embedding-operator.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "embedding-operator.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- /* What the Deployment, the Service and the other selectors select. Immutable: never add to it. */}}
{{- define "embedding-operator.selectorLabels" -}}
app.kubernetes.io/name: {{ include "embedding-operator.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{- /* The labels of one object. Call with (dict "context" $ "labels" FURTHER_LABELS), or with the root context alone. */}}
{{- define "embedding-operator.labels" -}}
{{- $context := .context | default . }}
{{- $own := include "embedding-operator.selectorLabels" $context | fromYaml }}
{{- $_ := set $own "app.kubernetes.io/version" ($context.Chart.AppVersion | toString) }}
{{- $_ := set $own "app.kubernetes.io/component" "operator" }}
{{- $_ := set $own "app.kubernetes.io/part-of" "embedding-operator" }}
{{- $_ := set $own "app.kubernetes.io/managed-by" $context.Release.Service }}
{{- $_ := set $own "helm.sh/chart" (printf "%s-%s" $context.Chart.Name $context.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-") }}
{{- toYaml (merge $own (.labels | default dict) ($context.Values.commonLabels | default dict)) }}
{{- end }}
