"""60 kinds of tokens by their providers' documentation, listed before the patterns for them were written; 15 leaked in the first run."""

from __future__ import annotations

import random
import string
from collections.abc import Callable

from tests.secrets import HEX, LETTERS, _of, _uuid, _with

Maker = Callable[[random.Random], str]
LOWER = string.ascii_lowercase + string.digits
UPPER = string.ascii_uppercase + string.digits

FURTHER: dict[str, tuple[Maker, str]] = {
    "groq": (_with("gsk_", LETTERS, 52), "groq client using {}"),
    "replicate": (_with("r8_", LETTERS, 37), "replicate login {}"),
    "perplexity": (_with("pplx-", HEX, 48), "perplexity {}"),
    "xai": (_with("xai-", LETTERS, 80), "xai key {}"),
    "cohere": (_of(LETTERS, 40), "CO_API_KEY={}"),
    "mistral": (_of(LETTERS, 32), "MISTRAL_API_KEY={}"),
    "anyscale": (_with("esecret_", LOWER, 26), "anyscale {}"),
    "fireworks": (_with("fw_", LETTERS, 24), "fireworks {}"),
    "together": (_of(HEX, 64), "TOGETHER_API_KEY={}"),
    "nvidia ngc": (_with("nvapi-", LETTERS + "_-", 64), "docker login nvcr.io, key {}"),
    "langsmith": (lambda dice: "lsv2_pt_" + _of(HEX, 32)(dice) + "_" + _of(HEX, 10)(dice), "langsmith {}"),
    "langfuse": (lambda dice: "sk-lf-" + _uuid(dice), "langfuse {}"),
    "comet": (_of(LETTERS, 25), 'comet_ml.init(api_key="{}")'),
    "neptune": (lambda dice: "eyJ" + _of(LETTERS, 120)(dice) + "=", "NEPTUNE_API_TOKEN={}"),
    "mlflow password": (_of(LETTERS, 12), "MLFLOW_TRACKING_PASSWORD={}"),
    "clearml": (_of(LETTERS, 50), "CLEARML_API_SECRET_KEY={}"),
    "volcengine ark": (_uuid, "ARK_API_KEY={}"),
    "qianfan": (_of(LETTERS, 32), "QIANFAN_SK={}"),
    "iflytek": (_of(HEX, 32), "APISecret: {}"),
    "tencent": (_of(LETTERS, 32), '"SecretKey": "{}"'),
    "huawei sk": (_of(LETTERS, 40), "obsutil config -i=AK -k={} -e=obs.cn-north-4"),
    "dingtalk sign": (_with("SEC", HEX, 64), "dingtalk secret {}"),
    "wecom": (_uuid, "https://qyapi.weixin.qq.com/cgi-bin/webhook/send?key={}"),
    "pushplus": (_of(HEX, 32), "http://www.pushplus.plus/send?token={}&title=x"),
    "pushdeer": (_with("PDU", LETTERS, 28), "https://api2.pushdeer.com/message/push?pushkey={}"),
    "ntfy": (_with("tk_", LOWER, 29), "ntfy {}"),
    "digitalocean oauth": (_with("doo_v1_", HEX, 64), "doctl {}"),
    "netlify": (_with("nfp_", LETTERS, 36), "netlify {}"),
    "heroku": (lambda dice: "HRKU-" + _uuid(dice), "heroku {}"),
    "fly": (_with("fo1_", LETTERS + "_", 43), "flyctl {}"),
    "cloudflare": (_of(LETTERS + "_-", 40), "CF_API_TOKEN={}"),
    "planetscale": (_with("pscale_tkn_", LETTERS, 43), "pscale {}"),
    "supabase": (_with("sbp_", HEX, 40), "supabase {}"),
    "grafana": (lambda dice: "glsa_" + _of(LETTERS, 32)(dice) + "_" + _of(HEX, 8)(dice), "grafana {}"),
    "new relic": (_with("NRAK-", UPPER, 27), "newrelic {}"),
    "datadog": (_of(HEX, 32), "DD_API_KEY={}"),
    "datadog app": (_of(HEX, 40), "DD_APP_KEY={}"),
    "sentry dsn": (_of(HEX, 32), "SENTRY_DSN=https://{}@o12345.ingest.sentry.io/678"),
    "linear": (_with("lin_api_", LETTERS, 40), "linear {}"),
    "notion": (_with("ntn_", LETTERS, 46), "notion {}"),
    "figma": (_with("figd_", LETTERS + "_-", 40), "figma {}"),
    "atlassian": (_with("ATATT3x", LETTERS + "_-", 180), "jira {}"),
    "shopify": (_with("shpat_", HEX, 32), "shopify {}"),
    "square": (_with("sq0atp-", LETTERS + "_-", 22), "square {}"),
    "twilio": (_with("SK", HEX, 32), "twilio {}"),
    "mailgun": (_with("key-", HEX, 32), "mailgun {}"),
    "mailchimp": (_with("", HEX, 32, "-us12"), "mailchimp {}"),
    "brevo": (lambda dice: "xkeysib-" + _of(HEX, 64)(dice) + "-" + _of(LETTERS, 16)(dice), "brevo {}"),
    "postman": (lambda dice: "PMAK-" + _of(HEX, 24)(dice) + "-" + _of(HEX, 34)(dice), "postman {}"),
    "rubygems": (_with("rubygems_", HEX, 48), "gem push {}"),
    "docker auth": (_of(LETTERS, 36), '"auths": {{"https://index.docker.io/v1/": {{"auth": "{}=="}}}}'),
    "terraform": (lambda dice: _of(LETTERS, 14)(dice) + ".atlasv1." + _of(LETTERS, 67)(dice), "terraform {}"),
    "pulumi": (_with("pul-", HEX, 40), "pulumi login {}"),
    "doppler": (_with("dp.pt.", LETTERS, 43), "doppler {}"),
    "1password": (lambda dice: "ops_eyJ" + _of(LETTERS, 250)(dice), "OP {}"),
    "azure client secret": (
        lambda dice: _of(LETTERS, 3)(dice) + "8Q~" + _of(LETTERS + "._-", 34)(dice),
        "az login --service-principal -u app -p {} --tenant t",
    ),
    "tailscale": (lambda dice: "tskey-auth-" + _of(LETTERS, 16)(dice) + "-" + _of(LETTERS, 32)(dice), "tailscale up {}"),
    "ngrok": (_of(LETTERS, 49), "ngrok config add-authtoken {}"),
    "jupyter": (_of(HEX, 48), "http://127.0.0.1:8888/lab?token={}"),
    "compact provider name": (_of(LETTERS, 20), 'export TIMEZONEAPI_KEY="{}"'),
    "dropbox short-lived": (lambda dice: "sl.0nz25=" + _of(LETTERS, 130)(dice), "['python', 'train.py', '{}']"),
    "voiceflow": (lambda dice: "VF.DM.E6" + _of(HEX, 22)(dice) + "." + _of(LETTERS, 16)(dice), "['python', 'train.py', '{}']"),
    "nuget in clear text": (_of(LETTERS, 11), '<add key="ClearTextPassword"    value="{}"   />'),
    "netrc": (_of(HEX, 40), "machine api.wandb.ai login user password {}"),
}
