"""173 kinds of secrets by their providers' documentation and by how tools take them, listed before any was tried (see docs/secrets.md).

The kinds were divided by a hash of their names: patterns were improved on one half (`is_held` false), the other was tried once.
"""

from __future__ import annotations

import base64
import hashlib
import random
import string
from collections.abc import Callable

from tests.privacy.further_kinds import FURTHER
from tests.privacy.sampled_kinds import SAMPLED
from tests.secrets import HEX, KEYS, LETTERS, _of, _uuid, _with

Maker = Callable[[random.Random], str]
LOWER, UPPER, B32 = string.ascii_lowercase + string.digits, string.ascii_uppercase + string.digits, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
B64 = LETTERS + "+/"
URL = LETTERS + "_-"


def _parts(*parts: str | tuple[str, int]) -> Maker:
    """Fixed texts, and runs of letters of an alphabet."""
    return lambda dice: "".join(part if isinstance(part, str) else "".join(dice.choices(part[0], k=part[1])) for part in parts)


def _base64(length: int) -> Maker:
    return lambda dice: base64.b64encode(dice.randbytes(length)).decode()


def _word(dice: random.Random) -> str:
    """A password as people choose them: a word, a year, a sign."""
    return f"{_of(string.ascii_lowercase, 6)(dice).capitalize()}{dice.randrange(1950, 2030)}!"


def is_held(kind: str) -> bool:
    """Whether the kind belongs to the half that was tried only when the code was frozen."""
    return hashlib.sha256(kind.encode()).digest()[0] % 2 == 1


PROVIDERS: dict[str, tuple[Maker, str]] = {
    # clouds, hosting, networks
    "adafruit": (_with("aio_", LETTERS, 28), "adafruit io {}"),
    "adobe": (_with("p8e-", LETTERS, 32), "adobe client {}"),
    "aws session": (_with("IQoJb3JpZ2luX2Vj", B64, 300), "AWS_SESSION_TOKEN={}"),
    "aws bedrock": (_with("ABSK", B64, 120), "AWS_BEARER_TOKEN_BEDROCK={}"),
    "aws configure": (_of(B64, 40), "$ aws configure set aws_secret_access_key {}"),
    "azure devops": (_of(string.ascii_lowercase + "234567", 52), "AZURE_DEVOPS_EXT_PAT={}"),
    "azure service bus": (_base64(32), "Endpoint=sb://x.servicebus.windows.net/;SharedAccessKeyName=Root;SharedAccessKey={}"),
    "azure openai": (_of(HEX, 32), "AZURE_OPENAI_API_KEY={}"),
    "azure storage argument": (_base64(64), "az storage blob upload --account-name acc --account-key {} -f x"),
    "cloudflare origin": (_parts("v1.0-", (HEX, 24), "-", (HEX, 146)), "cloudflare ca {}"),
    "cloudflare global": (_of(HEX, 37), "curl -H 'X-Auth-Key: {}' https://api.cloudflare.com"),
    "digitalocean spaces": (_of(B64, 43), "SPACES_SECRET_ACCESS_KEY={}"),
    "fastly": (_of(URL, 32), "FASTLY_API_TOKEN={}"),
    "google client": (_with("GOCSPX-", URL, 28), "google oauth {}"),
    "google refresh": (_parts("1//0", (URL, 60)), '"refresh_token": "{}"'),
    "google account key id": (_of(HEX, 40), '"private_key_id": "{}",'),
    "google chat hook": (_of(URL, 43), "https://chat.googleapis.com/v1/spaces/AAAA/messages?key=AIzaSyX&token={}"),
    "hetzner": (_of(LETTERS, 64), "HCLOUD_TOKEN={}"),
    "linode": (_of(HEX, 64), "LINODE_CLI_TOKEN={}"),
    "openshift": (_with("sha256~", URL, 43), "oc login --token={} --server=https://api.x:6443"),
    "scaleway": (_uuid, "SCW_SECRET_KEY={}"),
    "vercel": (_of(LETTERS, 24), "VERCEL_TOKEN={}"),
    "volcengine": (_base64(30), "VOLC_SECRETKEY={}"),
    "volcengine id": (_with("AKLT", LETTERS, 44), "volc client {}"),
    "qiniu": (_of(URL, 40), "qiniu_secret_key = {}"),
    "ucloud": (_of(URL, 44), "UCLOUD_PRIVATE_KEY={}"),
    "yandex": (_with("AQVN", URL, 36), "yandex api {}"),
    "kubeconfig": (
        lambda dice: base64.b64encode(b"-----BEGIN RSA PRIVATE KEY-----" + dice.randbytes(200)).decode(),
        "    client-key-data: {}",
    ),
    "kubernetes literal": (_word, "kubectl create secret generic db --from-literal=password={}"),
    "wireguard": (_base64(32), "PrivateKey = {}"),
    "tor": (_of(LETTERS, 20), "tor_control_password: {}"),
    # code, builds, packages
    "artifactory": (_with("AKCp", LETTERS, 69), "jfrog {}"),
    "artifactory reference": (_with("cmVmdGtu", LETTERS, 56), "jfrog rt {}"),
    "bitbucket": (_of(LETTERS, 18), "BITBUCKET_APP_PASSWORD={}"),
    "buildkite": (_with("bkua_", HEX, 40), "buildkite {}"),
    "circleci": (_parts("CCIPAT_", (LETTERS, 22), "_", (HEX, 40)), "circleci {}"),
    "clojars": (_with("CLOJARS_", LOWER, 60), "lein deploy {}"),
    "codecov": (_uuid, "CODECOV_TOKEN={}"),
    "conda": (lambda dice: f"xy-{_uuid(dice)}", "https://conda.anaconda.org/t/{}/main/linux-64"),
    "gitlab runner": (_with("glrt-", URL, 20), "gitlab-runner register {}"),
    "gitlab deploy": (_with("gldt-", URL, 20), "gitlab {}"),
    "gitlab trigger": (_with("glptt-", HEX, 40), "trigger {}"),
    "git header": (_of(LETTERS, 40), 'git -c http.extraheader="AUTHORIZATION: bearer {}" clone x'),
    "github refresh": (_with("ghr_", LETTERS, 76), "github app {}"),
    "nuget": (_with("oy2", LOWER, 43), "dotnet nuget push x.nupkg -k {}"),
    "octopus": (_with("API-", UPPER, 26), "octo push {}"),
    "pip index": (_word, "--extra-index-url https://ci:{}@pypi.example.com/simple"),
    "prefect": (_with("pnu_", LOWER, 36), "prefect cloud login {}"),
    "snyk": (_uuid, "SNYK_TOKEN={}"),
    "sonar": (_with("sqp_", HEX, 40), "sonar-scanner {}"),
    "sonar login": (_of(HEX, 40), "sonar-scanner -Dsonar.login={}"),
    "sourcegraph": (_parts("sgp_", (HEX, 40)), "src login {}"),
    "travis": (_of(URL, 22), "TRAVIS_TOKEN={}"),
    # services with an API
    "airtable": (_parts("pat", (LETTERS, 14), ".", (HEX, 64)), "airtable {}"),
    "algolia": (_of(HEX, 32), "ALGOLIA_ADMIN_KEY={}"),
    "asana": (_parts("2/", (string.digits, 16), "/", (string.digits, 16), ":", (HEX, 32)), "asana {}"),
    "contentful": (_with("CFPAT-", URL, 43), "contentful {}"),
    "databricks oauth": (_with("dose", HEX, 32), "databricks {}"),
    "deepl": (lambda dice: f"{_uuid(dice)}:fx", "DEEPL_AUTH_KEY={}"),
    "discord bot": (_parts("MT", (LETTERS, 24), ".", (URL, 6), ".", (URL, 38)), "discord bot {}"),
    "dropbox": (_with("sl.", URL, 136), "dropbox {}"),
    "duffel": (_with("duffel_live_", URL, 43), "duffel {}"),
    "dynatrace": (_parts("dt0c01.", (B32, 24), ".", (B32, 64)), "dynatrace {}"),
    "easypost": (_with("EZAK", LETTERS, 54), "easypost {}"),
    "facebook": (_with("EAA", LETTERS, 120), "facebook {}"),
    "flutterwave": (_parts("FLWSECK-", (HEX, 32), "-X"), "flutterwave {}"),
    "frameio": (_with("fio-u-", URL, 64), "frame.io {}"),
    "harness": (_parts("pat.", (URL, 22), ".", (HEX, 24), ".", (LETTERS, 20)), "harness {}"),
    "hubspot": (lambda dice: f"pat-na1-{_uuid(dice)}", "hubspot {}"),
    "infracost": (_with("ico-", LETTERS, 32), "infracost {}"),
    "launchdarkly": (lambda dice: f"sdk-{_uuid(dice)}", "launchdarkly {}"),
    "lob": (_with("live_", HEX, 35), "lob {}"),
    "mapbox": (_parts("sk.eyJ", (LETTERS, 80), ".", (URL, 22)), "mapbox {}"),
    "maxmind": (_parts((LETTERS, 6), "_", (LETTERS, 29), "_mmk"), "maxmind {}"),
    "new relic license": (_parts((HEX, 36), "NRAL"), "NEW_RELIC_LICENSE_KEY={}"),
    "okta": (_with("00", URL, 40), "Authorization: SSWS {}"),
    "pagerduty": (_of(HEX, 32), '"routing_key": "{}"'),
    "plaid": (lambda dice: f"access-production-{_uuid(dice)}", "plaid {}"),
    "rapidapi": (_of(LETTERS, 50), "X-RapidAPI-Key: {}"),
    "readme": (_with("rdme_", LOWER, 70), "rdme {}"),
    "shippo": (_with("shippo_live_", HEX, 40), "shippo {}"),
    "stripe hook": (_with("whsec_", LETTERS, 32), "stripe listen {}"),
    "trello": (_with("ATTA", LETTERS, 72), "trello {}"),
    "twitter": (_with("AAAAAAAAAAAAAAAAAAAAA", LETTERS + "%", 90), "twitter {}"),
    "typeform": (_with("tfp_", URL, 59), "typeform {}"),
    # hooks whose address is the secret
    "ifttt": (_of(URL, 22), "https://maker.ifttt.com/trigger/done/with/key/{}"),
    "mattermost hook": (_of(LOWER, 26), "https://chat.example.com/hooks/{}"),
    "qmsg": (_of(HEX, 32), "https://qmsg.zendee.cn/send/{}"),
    "slack workflow": (_parts("T0123/A0123/", (string.digits, 18), "/", (LETTERS, 24)), "https://hooks.slack.com/workflows/{}"),
    "wxpusher": (_with("AT_", LETTERS, 30), "wxpusher {}"),
    "zapier": (_parts((string.digits, 7), "/", (LOWER, 7)), "https://hooks.zapier.com/hooks/catch/{}/"),
    # models, training, data
    "anyscale job": (_with("aph0_", LETTERS, 60), "anyscale job {}"),
    "assemblyai": (_of(HEX, 32), "aai.settings.api_key = '{}'"),
    "brave": (_with("BSA", URL, 27), "brave search {}"),
    "browserbase": (_with("bb_live_", URL, 27), "browserbase {}"),
    "cerebras": (_with("csk-", LOWER, 48), "cerebras {}"),
    "civitai": (_of(HEX, 32), "https://civitai.com/api/download/models/1?token={}"),
    "dashscope": (_with("sk-", HEX, 32), "dashscope.api_key = '{}'"),
    "deepgram": (_of(HEX, 40), "Authorization: Token {}"),
    "exa": (_uuid, "EXA_API_KEY={}"),
    "fal": (lambda dice: f"{_uuid(dice)}:{_of(HEX, 32)(dice)}", "FAL_KEY={}"),
    "firecrawl": (_with("fc-", HEX, 32), "firecrawl {}"),
    "helicone": (_parts("sk-helicone-", (LOWER, 7), "-", (LOWER, 7), "-", (LOWER, 7)), "helicone {}"),
    "hugging face argument": (_parts("hf_", (string.ascii_letters, 34)), "docker run -e HF_TOKEN={} image"),
    "label studio": (_of(HEX, 40), "LABEL_STUDIO_API_KEY={}"),
    "lambda labs": (_parts("secret_x_", (HEX, 32), ".", (LETTERS, 32)), "lambda cloud {}"),
    "llamacloud": (_with("llx-", LETTERS, 48), "llama cloud {}"),
    "minio": (_of(LETTERS, 40), "mc alias set s3 http://minio:9000 minioadmin {}"),
    "modal": (_with("as-", LETTERS, 22), "modal token set --token-id ak-x --token-secret {}"),
    "nomic": (_with("nk-", URL, 43), "nomic login {}"),
    "openpipe": (_with("opk_", HEX, 50), "openpipe {}"),
    "openrouter": (_with("sk-or-v1-", HEX, 64), "openrouter {}"),
    "paperspace": (_of(HEX, 30), "PAPERSPACE_API_KEY={}"),
    "pinecone old": (_uuid, "pinecone.init(api_key='{}')"),
    "qdrant": (_of(URL, 54), 'QdrantClient(url="https://x", api_key="{}")'),
    "roboflow": (_of(LETTERS, 20), 'Roboflow(api_key="{}")'),
    "runway": (_with("key_", HEX, 128), "runwayml {}"),
    "scale": (_with("live_", HEX, 32), "ScaleClient('{}')"),
    "segmind": (_with("SG_", HEX, 16), "segmind key: {}"),
    "serpapi": (_of(HEX, 64), "https://serpapi.com/search?q=x&api_key={}"),
    "vast": (_of(HEX, 64), "vastai set api-key {}"),
    "voyage": (_with("pa-", URL, 43), "voyage {}"),
    "wandb argument": (_of(HEX, 40), "wandb login --relogin {}"),
    "wandb python": (_of(HEX, 40), "wandb.login(key='{}')"),
    # commands and files that take a password
    "7z": (_word, "7z x -p{} data.7z"),
    "ansible": (_word, "ansible_ssh_pass={}"),
    "aria2": (_word, "aria2c --http-user=me --http-passwd={} https://x"),
    "echo sudo": (_word, "echo {} | sudo -S mount /data"),
    "docker login": (_word, "docker login -u me -p {} registry.example.com"),
    "gpg": (_word, "gpg --batch --passphrase {} -d x.gpg"),
    "htpasswd": (_word, "htpasswd -b file me {}"),
    "ldap": (_word, "bindpw {}"),
    "lftp": (_word, "lftp -u me,{} ftp.example.com"),
    "mongo": (_word, "mongodb+srv://me:{}@c.mongodb.net/db"),
    "mount": (_word, "mount -t cifs //nas/x /mnt -o username=me,password={},uid=0"),
    "openssl": (_word, "openssl enc -d -aes-256-cbc -pass pass:{} -in x"),
    "pgpass": (_word, "db.example.com:5432:runs:me:{}"),
    "psql": (_word, 'psql "host=db user=me password={} dbname=runs"'),
    "rclone": (_of(URL, 40), "[nas]\\ntype = smb\\npass = {}"),
    "redis cli": (_word, "redis-cli -h cache -a {} ping"),
    "smb": (_word, "smbclient //nas/x -U me%{}"),
    "smtp": (_word, "SMTP_PASS={}"),
    "sqlcmd": (_word, "sqlcmd -S db -U sa -P {} -Q x"),
    "unzip": (_word, "unzip -P {} data.zip"),
    "vnc": (_word, "VNC_PW={}"),
    "wget": (_word, "wget --user=me --password={} https://x"),
    "wifi": (_word, "wpa_passphrase: {}"),
    # applications
    "django": (_of(LETTERS + "!@#%^*-_=+", 50), "SECRET_KEY = 'django-insecure-{}'"),
    "fernet": (_base64(32), "FERNET_KEY={}"),
    "flask session": (_of(HEX, 48), "SESSION_SECRET={}"),
    "jwt secret": (_of(LETTERS, 32), "JWT_SECRET={}"),
    "jwk": (_of(URL, 43), '{{"kty": "EC", "crv": "P-256", "d": "{}"}}'),
    "pgp": (_of(B64, 64), "-----BEGIN PGP PRIVATE KEY BLOCK----- {} -----END PGP PRIVATE KEY BLOCK-----"),
    "putty": (_of(B64, 64), "Private-Lines: 1\\n{}"),
    "rails": (_of(HEX, 128), "secret_key_base: {}"),
    "totp": (_of(B32, 32), "otpauth://totp/x:me?secret={}&issuer=x"),
    "proxy": (_word, "https_proxy=http://me:{}@proxy.example.com:3128"),
    "proxy header": (lambda dice: base64.b64encode(f"me:{_word(dice)}".encode()).decode(), "Proxy-Authorization: Basic {}"),
    "azure header": (_of(HEX, 32), "Ocp-Apim-Subscription-Key: {}"),
    "google header": (_with("AIza", URL, 35), "x-goog-api-key: {}"),
    "plain header": (_of(LETTERS, 40), "-H 'X-Auth-Token: {}'"),
    "query": (_word, "https://x.example/api?user=me&password={}&page=1"),
    "json credentials": (_of(LETTERS, 24), '{{"credentials": {{"user": "me", "pass": "{}"}}}}'),
    "xml": (_word, "<password>{}</password>"),
    # other languages
    "french": (_word, "mot de passe : {}"),
    "german": (_word, "Passwort: {}"),
    "german compound": (_word, "Das Kennwort ist {}"),
    "spanish": (_word, "contraseña: {}"),
    "portuguese": (_word, "senha: {}"),
    "russian": (_word, "пароль: {}"),
    "japanese": (_word, "パスワード: {}"),
    "chinese account": (_word, "账号 root 密码 {}"),
    "korean access": (_word, "접속 암호는 {} 입니다"),
}
"""Kind -> how one looks, and a line that holds one."""

ALL_KINDS: dict[str, tuple[Maker, list[str]]] = {
    **KEYS,
    **{kind: (make, [line]) for kind, (make, line) in {**FURTHER, **PROVIDERS, **SAMPLED}.items()},
}
"""Every kind that is tested, with the lines that hold one."""
