"""What secrets look like: tokens by their prefix, values by the name before them, arguments by their command.

Kinds are those of the providers' documentation and of detect-secrets and gitleaks; the patterns are ours.
"""

from __future__ import annotations

import re

from doctor.support.lazy_regex import lazy_compile

TOKENS = lazy_compile(
    r"""\b(?:
      (?P<hf>hf_|api_org_)[A-Za-z0-9]{12,}                       # Hugging Face
    | (?P<sk>sk-|[sr]k_(?:live|test)_|pk_live_)[A-Za-z0-9_-]{12,}  # OpenAI, Anthropic and look-alikes; Stripe
    | (?P<gh>gh[pousr]_|github_pat_|gl(?:pat|ptt|rt|dt|cbt|imt|agent|oas|soat|ffct|ft)-)[A-Za-z0-9_-]{16,}    # GitHub, GitLab
    | (?P<aws>AKIA|ASIA)[0-9A-Z]{16}\b                           # AWS access key id
    | (?P<cloud>LTAI|AKID)[A-Za-z0-9]{16,}                       # Alibaba Cloud, Tencent Cloud
    | (?P<google>AIza)[A-Za-z0-9_-]{30,}
    | (?P<oauth>ya29\.)[A-Za-z0-9_-]{20,}                        # Google OAuth
    | (?P<slack>xox[abeprs]-|xapp-\d-)[A-Za-z0-9-]{10,}
    | (?P<wandb>wandb_v1_)[A-Za-z0-9_]{12,}
    | (?P<package>npm_|pypi-|dckr_pat_|dop_v1_|dapi|ms-)(?=[A-Za-z0-9_-]{0,40}\d)[A-Za-z0-9_-]{28,}  # registries, Databricks, ModelScope
    | (?P<mail>SG\.)[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}       # SendGrid
    | (?P<telegram>bot)?\d{8,10}:AA[A-Za-z0-9_-]{30,}            # Telegram
    | (?P<zhipu>)[0-9a-f]{32}\.[A-Za-z0-9]{16}\b                  # Zhipu (GLM)
    | (?P<baidu>bce-v3/)ALTAK-[A-Za-z0-9]{16,}/[0-9a-f]{32,}     # Baidu Cloud
    | (?P<vault>hv[sbr]\.)[A-Za-z0-9_-]{20,}                     # HashiCorp Vault
    | (?P<age>AGE-SECRET-KEY-1)[A-Z0-9]{40,}
    | (?P<serverchan>SCT)\d{2,8}T[A-Za-z0-9]{16,}
    | (?P<prefixed>esecret_|gsk_|r8_|xai-|fw_|tk_|nvapi-|glsa_|glc_|ntn_|figd_|shpat_|rubygems_|sq0[a-z]{3}-|lin_api_|xkeysib-|HRKU-
        |NR(?:AK|JS|II)-|PMAK-|PDU|pul-|nfp_|fo1_|sbp_|rpa_|tvly-|jina_|pcsk_|e2b_|lsv2_(?:pt|sk)_|dp\.(?:pt|st|ct|sa)\.|tskey-[a-z]{1,10}-|pscale_tkn_|d[or]o_v1_|ops_
        |ATATT3x|ATBB|GOCSPX-|CCIPAT_|pn[ub]_|sl\.|duffel_(?:live|test)_|AT_|bb_live_|BSA|aio_|cmVmdGtu|CLOJARS_
        |oy2(?=[a-z0-9]{43})|CFPAT-|fio-u-|rdme_|csk-|llx-|pa-|nk-|AQVN|API-[A-Z0-9](?=[A-Z0-9]{20})|ico-|whsec_|sntry[su]_|secret_|sdp_
      )(?=[\w-]{0,40}\d)[A-Za-z0-9_-]{18,}                         # Groq, Replicate, xAI, NVIDIA, Grafana, Heroku, ...
    | (?P<cloudflare>v1\.0-)[0-9a-f]{24}-[0-9a-f]{64,}              # Cloudflare origin CA
    | (?P<bedrock>ABSK)[A-Za-z0-9+/]{80,}={0,2}                    # Amazon Bedrock
    | (?P<airtable>pat)[A-Za-z0-9]{14}\.[0-9a-f]{64}\b
    | (?P<dynatrace>dt0[a-z]\d{2}\.)[A-Z2-7]{24}\.[A-Z2-7]{32,}
    | (?P<discord>)[MNO][A-Za-z0-9_-]{23,28}\.[A-Za-z0-9_-]{6}\.[A-Za-z0-9_-]{27,}
    | (?P<mapbox>[sp]k\.eyJ)[A-Za-z0-9_-]{20,}\.[A-Za-z0-9_-]{10,}
    | (?P<databricks>dose|dapi)[0-9a-f]{32}\b
    | (?P<asana>)\d/\d{10,20}(?:/\d{10,20})?:[0-9a-f]{32}\b
    | (?P<harness>pat\.)[A-Za-z0-9_-]{22}\.[0-9a-f]{24}\.[A-Za-z0-9]{20}\b
    | (?P<twitter>A{18,})[A-Za-z0-9%_-]{60,}
    | (?P<segmind>SG_)[0-9a-f]{16}\b
    | (?P<uuid>(?:[a-z0-9]{2,12}-){0,2}(?:pat|sdk|api|access|token|secret|key|sk)-(?:[a-z0-9]{2,12}-){0,2})
      [0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b
    | (?P<uuidlike>)(?=[a-z-]*\d)(?=[0-9a-f-]*[g-z])[0-9a-z]{8}(?:-[0-9a-z]{4}){3}-[0-9a-z]{12}\b    # a UUID has no letter beyond f
    | (?P<groups>)(?=(?:[A-Z-]*\d){4})(?=(?:[0-9-]*[A-Z]){4})(?:[A-Z0-9]{2}-)?[A-Z0-9]{5,11}(?:-[A-Z0-9]{5,11}){3,}\b  # licences
    | (?P<mode>[A-Z]{2,10}_(?:TEST|LIVE|PROD)[-_])(?=[A-Za-z]*\d)(?=\d*[A-Za-z])[A-Za-z0-9]{12,}\b    # keys for tests and for real
    | (?P<shortlived>sl\.)(?=[\w-]{0,40}[\d=])[A-Za-z0-9_=-]{60,}      # Dropbox
    | (?P<dotted>[A-Z]{2,4}\.(?:[A-Z]{2,4}\.)?)(?=[A-Za-z]{0,40}\d)[A-Za-z0-9]{20,}\.[A-Za-z0-9]{12,}\b    # Voiceflow and the like
    | (?P<fly>fm\d{1,12}_)[A-Za-z0-9+/=_,-]{60,}                   # Fly.io
    | (?P<maxmind>)[A-Za-z0-9]{6}_[A-Za-z0-9]{29}_mmk\b
    | (?P<terraform>)[A-Za-z0-9]{14}\.atlasv1\.[A-Za-z0-9_-]{40,}
    | (?P<twilio>SK|AC)[0-9a-f]{32}\b
    | (?P<mailchimp>)[0-9a-f]{32}-us\d{1,2}\b
    | (?P<azure>)[A-Za-z0-9]{3}\dQ~[A-Za-z0-9._~-]{30,}            # Entra ID client secret
    | (?P<jwt>eyJ)[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{4,}
    )""",
    re.VERBOSE,
)
"""Tokens with a shape of their own; the group that matched is the part that stays."""

PREFIXED_HEX = lazy_compile(
    r"(?<![\w/+.=%$@-])((?!sha\d|md5|blake|commit|rev|etag|build|layer|kernel|triton|graph)[A-Za-z]{2,12}[-_](?:[a-z0-9]{1,8}[-_]){0,2})[0-9a-f]{28,128}\b"
)
"""A provider's prefix before a long hexadecimal number; digests are written with the name of their hash instead."""

PREFIXED_RANDOM = lazy_compile(r"(?<![\w/+.=%$@-])([a-z]{2,10}[_-](?:[a-z]{2,6}[_-])?)([A-Za-z0-9]{16,22})(?![\w/+.=-])")
"""A provider's prefix before letters and digits too few for RANDOM; `secrets.is_keylike` and the words in it decide."""

PRIVATE_KEY = lazy_compile(
    r"(-----BEGIN [A-Z ]{0,30}PRIVATE KEY(?: BLOCK)?-----).*?(?:(?=-----END )|\Z)"
    r"|(Private-Lines: \d{1,4}(?:\\+[nr]|\s)+)[A-Za-z0-9+/=\\\s]+",
    re.DOTALL,
)
"""PEM and PGP blocks, and the lines of PuTTY's keys."""
MAIL = lazy_compile(r"\b(?!git@)[A-Za-z0-9][\w.+%-]{0,64}@(?:[A-Za-z0-9-]{1,63}\.)+[A-Za-z]{2,24}\b")
SIGNED_URL = lazy_compile(
    r"([?&](?:X-Amz-(?:Signature|Credential|Security-Token)|Signature|sig|sign|access_token|token|(?:push)?key|code|auth)=)[^\s&\"'<>]{6,}",
    re.IGNORECASE,
)
COOKIE = lazy_compile(r"(?i)(\b(?:set-)?cookie[\"']?\s*[:=]\s*)[^\n]{6,}")
RANDOM = lazy_compile(r"(?<![\w/+.=%$@-])[A-Za-z0-9+/_.-]{23,511}[A-Za-z0-9+/_-]={0,2}(?![\w/+])")
"""Candidates for tokens without a name or prefix; `secrets.is_random` decides."""

BEARER = lazy_compile(
    r"(?i)\b(authorization(?:\\*[\"'])?\s*[:=]\s*(?:\\*[\"'])?(?:(?:bearer|basic|token|ssws|apikey|bot)\s+)?|bearer\s+)[A-Za-z0-9._~+/=-]{8,}"
)
WEBHOOK = lazy_compile(
    r"""((?:\bhooks?\.[\w.-]{1,60}|/open-apis/bot/v2/hook|discord(?:app)?\.com/api/webhooks|webhook\.office\.com/webhookb2
        |logic\.azure\.com(?::\d+)?/workflows|sctapi\.ftqq\.com|sc\.ftqq\.com|api\.day\.app|qmsg\.zendee\.cn/(?:send|group|jsend)|conda\.anaconda\.org/t)/)[^\s"'<>]+
        |(https?://[^\s"'<>]{1,100}/(?:web)?hooks?/)[A-Za-z0-9]{16,}(?![\w.])[^\s"'<>]*""",
    re.VERBOSE,
)
"""Hosts of hooks (Slack, Zapier), Feishu, Discord, Teams, ServerChan, Bark, Qmsg, paths of hooks (Mattermost): the path is the key."""

USERINFO = lazy_compile(r"(\b[a-z][a-z0-9+.-]{1,15}://[^\s/@:]{0,100}:)[^\s/@]{1,200}(?=@)", re.IGNORECASE)
"""scheme://user:password@host, the user may be missing (redis://:password@host)."""

_WORDS = (
    r"api[_-]?key|secret[_-]?(?:access[_-]?)?key|access[_-]?key(?:[_-]?secret)?|account[_-]?key|private[_-]?key|secret|token|"
    r"app[_-]?key|passwd|password|passphrase|credentials?"
)
NAMED = lazy_compile(
    rf"""(?P<name>(?<![A-Za-z0-9])(?:[A-Za-z0-9]{{1,40}}[_-]){{0,6}}(?:[a-z0-9]{{0,30}}(?:api|app|access|secret)_?key|{_WORDS}|pg(?:password|pass)|_auth|(?<=["'])auth(?=\\*["'])|(?<=_)[sa]k))
        (?P<between>(?:\\*["']){{0,5}}(?:\s*[:=]\s*|\s+)(?:\\*["']){{0,5}})
        (?P<value>[^\s"',;&|<>{{}}()\[\]]{{8,}})""",
    re.VERBOSE | re.IGNORECASE,
)
"""API_KEY=..., "token": "...", secret_key: ...; five quotes are those with which a shell quotes one (`'"'"'`)."""

LOOSELY_NAMED = lazy_compile(
    r"""(?P<name>(?:(?<![A-Za-z0-9])(?:key|token|secret|pass|auth|bearer|credentials?|pat|login)|(?-i:(?<=[a-z0-9])(?:Key|Token|Secret|Auth)))
            (?:[_-][A-Za-z0-9]{1,40}){0,3})
        (?P<between>(?:\\*["']){0,5}(?:\s*[:=]\s*|(?:\ (?:is|was))?\ |(?<=["'])\s*,\s*(?=\\*["']))(?:\\*["']){0,5})
        (?P<value>[A-Za-z0-9+/_:.~%|=$!#^*@-]{12,512})""",
    re.VERBOSE | re.IGNORECASE,
)
"""ALGOLIA_ADMIN_KEY=..., "accessToken": "...", invalid key ...: the value decides (`secrets.is_keylike`)."""

NO_SECRET_NAME = lazy_compile(
    r"(?i)(?:^|[^a-z0-9])(?:cache|hash|sort|primary|foreign|group|partition|public|index|dict|column|state|data|dataset|sample|row|file"
    r"|run|past)[ _-]key"
    r"|(?:^|[^a-z0-9])(?:pad|eos|bos|unk|sep|cls|mask|image|video|audio|special|stop)[ _-]token"
)
"""Names like those of secrets whose values are digests, columns or words."""

CAMEL_NAMED = lazy_compile(
    r"""(?P<name>(?<![A-Za-z0-9])[A-Za-z][A-Za-z0-9]{0,40}?(?:Secret|SecretKey|ApiKey|APIKey|AccessKey|Password|Passwd|PrivateKey|Credential))
        (?P<between>(?:\\*["']){0,5}(?:\s+value)?\s*[:=]\s*(?:\\*["']){0,5})(?P<value>[^\s"',;&|<>{}()\[\]]{8,})""",
    re.VERBOSE,
)
"""clientSecret, accessKeySecret and the like of JSON and Java configs."""

PASSWORD = lazy_compile(
    r"""((?<![A-Za-z0-9])(?:[A-Za-z0-9]{1,40}[_-]){0,6}(?:\w{0,12}passw(?:or)?d|passphrase)(?:\\*["']){0,5}(?:\s+value)?\s*[:=]\s*(?:\\*["']){0,5}
        |(?<![A-Za-z0-9])(?:[A-Z0-9]{1,40}_){1,6}(?:PASS|PWD|PSWD|PW)(?:\\*["']){0,5}\s*[:=]\s*(?:\\*["']){0,5}
        |(?<![A-Za-z0-9_])(?:[a-z0-9]{1,40}_){0,6}(?:pass|pwd)=(?:\\*["']){0,5}(?![/~.]))
        (?!(?:true|false|none|null|\*+|\$)\b)(?P<value>[^\s"',;&|<>{}()\[\]]{3,})""",
    re.VERBOSE | re.IGNORECASE,
)
"""Passwords of any length: a password's name is never followed by anything else, but PWD alone is the working directory."""

LABELLED = lazy_compile(
    r"((?:密码|口令|密钥|秘钥|私钥|令牌|授权码|비밀번호|암호|패스워드|API\s?키|パスワード)[\"'”]?\s{0,3}(?:[:：=]|是|为|は|는)?\s{0,3}[\"'“]?)"
    r"(?=[^\s\"'“”，。,;]*[A-Za-z0-9])[!-~]{4,}"
)
"""The Chinese, Korean and Japanese words for password, key and token; the value is in ASCII."""

FOREIGN_LABEL = lazy_compile(
    r"""(?ix)(\b(?:passwort|kennwort|mot\s+de\s+passe|contrase[nñ]a|palavra[- ]passe|senha
        |пароль|hasło|wachtwoord|lösenord|salasana|şifre|parola)
        [\"']?\s{0,3}(?:[:=]|\b(?:ist|est|es|é|is|это|jest)\b)\s{0,3}[\"']?)[^\s\"',;]{4,}"""
)
"""The words for password of other languages, with their sign or word for "is"."""

WANDB_HEX = lazy_compile(r"(?i)(wandb[^\n]{0,40}?\b)[0-9a-f]{40}\b")
BARE_HEX = lazy_compile(r"(?<![\w/+.=%$@#-])[0-9a-f]{40}(?![\w/.@-])")
"""A W&B key without its name; it looks like a git commit, so lines that match DIGEST_LINE are left."""

DIGEST_LINE = lazy_compile(
    r"(?i)commit|\bhead\b|revision|\brev\b|sha-?1|sha\b|git\b|hash|etag|digest|checksum|snapshot|blob|version|build|fingerprint|cache|node_id|uuid"
)
"""Lines whose 40 hexadecimal digits are a commit or a digest."""

OPTION_NAME = lazy_compile(rf"(?i)(?:^|[_-]|(?<=[a-z])(?=[A-Z]))(?:{_WORDS}|pgpassword|_auth)$|(?:^|_)(?:pass|pwd)$")
"""Names of options and variables whose whole value is a secret."""

MODEL_TOKEN = lazy_compile(r"(?:pad|eos|bos|unk|sep|cls|mask|image|video|audio|vision|special|stop|think|added|extra|new)[_-]?token$")
"""Tokens of a tokenizer, not of a login."""

NEEDED: dict[re.Pattern[str], tuple[str, ...]] = {
    BEARER: ("bearer", "authorization"),
    USERINFO: ("://",),
    COOKIE: ("cookie",),
    SIGNED_URL: ("=",),
    WEBHOOK: ("hook", "logic.azure.com", "ftqq.com", "api.day.app", "qmsg.zendee.cn", "conda.anaconda.org"),
    NAMED: ("key", "secret", "token", "pass", "credential", "auth", "_sk", "_ak"),
    CAMEL_NAMED: ("secret", "key", "passw", "credential"),
    PASSWORD: ("pass", "pw", "pswd"),
}
"""Of an ASCII text in which a pattern can match, the lower case contains one of these: most texts are spared most patterns."""
