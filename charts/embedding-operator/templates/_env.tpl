{{- /* The operator's settings. A name given twice would be refused by the API server's merge, or win by its place: refuse it here. */}}
{{- define "embedding-operator.env" -}}
{{- $settings := dict
  "EMBEDDING_OPERATOR_WATCH_NAMESPACES" (.Values.watchNamespaces | default list | uniq | sortAlpha | join ",")
  "EMBEDDING_OPERATOR_RUNTIME_IMAGE" (include "embedding-operator.image" (dict "image" .Values.runtime.image "context" .))
  "EMBEDDING_OPERATOR_RUNTIME_IMAGE_PULL_POLICY" .Values.runtime.image.pullPolicy
  "EMBEDDING_OPERATOR_RUNTIME_IMAGE_PULL_SECRETS" (.Values.runtime.image.pullSecrets | default list | join ",")
  "EMBEDDING_OPERATOR_MANAGE_MONITORING" (toString .Values.monitoring.enabled)
  "EMBEDDING_OPERATOR_PORT" "8080"
  "EMBEDDING_OPERATOR_LOG_LEVEL" .Values.logging.level
  "EMBEDDING_OPERATOR_LOG_FORMAT" .Values.logging.format
  "EMBEDDING_OPERATOR_LEASE_NAME" (include "embedding-operator.fullname" .) -}}
- name: EMBEDDING_OPERATOR_NAMESPACE
  valueFrom:
    fieldRef:
      fieldPath: metadata.namespace
- name: EMBEDDING_OPERATOR_POD_NAME
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
{{- range $name, $value := $settings }}
- name: {{ $name | quote }}
  value: {{ $value | quote }}
{{- end }}
{{- $seen := concat (keys $settings) (list "EMBEDDING_OPERATOR_NAMESPACE" "EMBEDDING_OPERATOR_POD_NAME") }}
{{- range .Values.extraEnv }}
{{- if has .name $seen }}
{{- fail (printf "extraEnv: %s is set by the chart or given twice; use the value of the chart that sets it, or remove the second entry" .name) }}
{{- end }}
{{- $seen = append $seen .name }}
- {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
