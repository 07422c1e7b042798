"""How more quota is asked for: what is left where a model is over a platform's limit whatever is done to it.

Google's guide to it: https://docs.cloud.google.com/docs/quotas/view-manage
"""

ASK = (
    "ask for more quota for the project: Quotas & System Limits in the Google Cloud console, "
    "https://console.cloud.google.com/iam-admin/quotas"
)
