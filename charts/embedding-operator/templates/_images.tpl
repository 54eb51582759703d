{{- /* A full image reference from {repository, tag, digest}: repository:tag, repository@digest or repository:tag@digest.
       Call with (dict "image" .Values.image "context" $). Without tag and digest the tag is the chart's appVersion; beside a digest
       no tag is invented, it could name another content. */}}
{{- define "embedding-operator.image" -}}
{{- $tag := .image.tag }}
{{- if not (or $tag .image.digest) }}
{{- $tag = .context.Chart.AppVersion }}
{{- end }}
{{- .image.repository }}{{ with $tag }}:{{ . }}{{ end }}{{ with .image.digest }}@{{ . }}{{ end }}
{{- end }}

{{- /* "true" when a repository names its registry: its first part holds a dot or a port, or is localhost. */}}
{{- define "embedding-operator.namesRegistry" -}}
{{- if regexMatch "^(localhost|[^/]*[.:][^/]*)/" . }}true{{ end }}
{{- end }}
