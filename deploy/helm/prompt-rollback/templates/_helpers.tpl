{{- /* The name of a release may contain dots and begin with a digit, that of a Service may not. Names are quoted because YAML reads
   some, such as 2026 and 1e3, as numbers. */}}
{{- define "prompt-rollback.name" -}}
{{- $name := ternary .Release.Name (printf "%s-%s" .Release.Name .Chart.Name) (contains .Chart.Name .Release.Name) }}
{{- regexReplaceAll "^[0-9]" ($name | replace "." "-") "r${0}" | trunc 50 | trimSuffix "-" }}
{{- end }}

{{- define "prompt-rollback.selector" -}}
app.kubernetes.io/name: prompt-rollback
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{- define "prompt-rollback.labels" -}}
{{ include "prompt-rollback.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- /* For objects that the operator's Prometheus and Alertmanager select. */}}
{{- define "prompt-rollback.operatorLabels" -}}
{{ include "prompt-rollback.labelsWith" (list . .Values.operator.labels) }}
{{- end }}

{{- /* The chart's labels, of which yours replace some. */}}
{{- define "prompt-rollback.labelsWith" -}}
{{- $own := include "prompt-rollback.labels" (index . 0) | fromYaml }}
{{- toYaml (mergeOverwrite $own (index . 1 | default dict)) }}
{{- end }}

{{- define "prompt-rollback.host" -}}
{{ include "prompt-rollback.name" . }}.{{ .Release.Namespace }}.svc
{{- end }}

{{- define "prompt-rollback.scheme" -}}
{{ if .Values.tls.secretName }}https{{ else }}http{{ end }}
{{- end }}

{{- define "prompt-rollback.receivers" -}}
- name: prompt-rollback
  webhookConfigs:
    - url: {{ include "prompt-rollback.scheme" . }}://{{ include "prompt-rollback.host" . }}:8000/webhooks/alertmanager
      sendResolved: true
      maxAlerts: 0
      httpConfig:
        followRedirects: false
        authorization:
          type: Bearer
          credentials: {name: {{ .Values.secret.name | quote }}, key: webhook_token}
        {{- with .Values.tls.secretName }}
        tlsConfig:
          ca: {secret: {name: {{ . | quote }}, key: ca.crt}}
        {{- end }}
{{- with .Values.operator.alertmanagerConfig.pager }}
- name: pager
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
