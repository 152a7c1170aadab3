"""Secrets to plant: every kind made up anew from a seed, in the places where logs and configs really hold them."""

from __future__ import annotations

import random
import string
from collections.abc import Callable

LETTERS = string.ascii_letters + string.digits
HEX = "0123456789abcdef"


def _of(alphabet: str, length: int) -> Callable[[random.Random], str]:
    def make(dice: random.Random) -> str:
        while True:
            made = "".join(dice.choices(alphabet, k=length))
            if length < 12 or (any(one.isdigit() for one in made) and any(one.isalpha() for one in made)):
                return made

    return make


def _with(before: str, alphabet: str, length: int, after: str = "") -> Callable[[random.Random], str]:
    return lambda dice: f"{before}{_of(alphabet, length)(dice)}{after}"


def _jwt(dice: random.Random) -> str:
    return f"eyJ{_of(LETTERS, 20)(dice)}.eyJ{_of(LETTERS, 40)(dice)}.{_of(LETTERS, 43)(dice)}"


def _uuid(dice: random.Random) -> str:
    return "-".join(_of(HEX, length)(dice) for length in (8, 4, 4, 4, 12))


def _chinese_id(dice: random.Random) -> str:
    """18 digits with the check digit of GB 11643."""
    first = f"110105{dice.randrange(1950, 2010)}{dice.randrange(1, 13):02}{dice.randrange(1, 29):02}{dice.randrange(1000):03}"
    weights = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
    return first + "10X98765432"[sum(int(digit) * weight for digit, weight in zip(first, weights, strict=True)) % 11]


KEYS: dict[str, tuple[Callable[[random.Random], str], list[str]]] = {
    "hugging face": (_with("hf_", LETTERS, 34), ["huggingface_hub.errors: 401 for token {}", "hf_hub_token: {}"]),
    "hugging face org": (_with("api_org_", LETTERS, 34), ["Token {} is not valid"]),
    "wandb": (_of(HEX, 40), ["WANDB_API_KEY={}", "wandb: Appending key for api.wandb.ai to your netrc file: {}"]),
    "wandb v1": (_with("wandb_v1_", LETTERS, 40), ["wandb login {}"]),
    "swanlab": (_of(LETTERS, 21), ["swanlab_api_key: {}", "SWANLAB_API_KEY={}"]),
    "openai": (_with("sk-proj-", LETTERS + "_-", 48), ["openai.AuthenticationError: Incorrect API key provided: {}", "OPENAI_API_KEY={}"]),
    "anthropic": (_with("sk-ant-api03-", LETTERS + "_-", 60), ["x-api-key: {}"]),
    "aws id": (_with("AKIA", string.ascii_uppercase + string.digits, 16), ["aws_access_key_id = {}"]),
    "aws secret": (_of(LETTERS + "+/", 40), ["aws_secret_access_key={}", "AWS_SECRET_ACCESS_KEY: {}"]),
    "google": (_with("AIza", LETTERS + "_-", 35), ["https://maps.example/api?key={}", "GOOGLE_API_KEY={}"]),
    "azure": (_of(LETTERS + "+/", 86), ["DefaultEndpointsProtocol=https;AccountName=acc;AccountKey={}=="]),
    "alibaba": (_with("LTAI", LETTERS, 20), ["OSS_ACCESS_KEY_ID={}", "oss2 client with {}"]),
    "modelscope": (_uuid, ["ms_hub_token: {}", "MODELSCOPE_API_TOKEN={}"]),
    "github": (_with("ghp_", LETTERS, 36), ["fatal: could not read from https://x:{}@github.com/a/b", "remote {}"]),
    "gitlab": (_with("glpat-", LETTERS, 20), ["PRIVATE-TOKEN: {}"]),
    "slack": (_with("xoxb-", string.digits + LETTERS, 40), ["slack token {}"]),
    "slack hook": (_of(LETTERS, 24), ["https://hooks.slack.com/services/T0000/B0000/{}"]),
    "feishu hook": (_uuid, ["https://open.feishu.cn/open-apis/bot/v2/hook/{}"]),
    "dingtalk": (_of(HEX, 64), ["https://oapi.dingtalk.com/robot/send?access_token={}"]),
    "telegram": (lambda dice: f"{dice.randrange(10**9, 10**10)}:AA{_of(LETTERS, 33)(dice)}", ["telegram bot {}"]),
    "npm": (_with("npm_", LETTERS, 36), ["//registry.npmjs.org/:_authToken={}"]),
    "pypi": (_with("pypi-AgEI", LETTERS + "_-", 80), ["TWINE_PASSWORD={}", "uploading with {}"]),
    "jwt": (_jwt, ["Cookie: session={}", "jwt {}"]),
    "bearer": (_of(LETTERS, 30), ["Authorization: Bearer {}", "{{'authorization': 'Bearer {}'}}"]),
    "password": (_of(LETTERS + "!#%", 14), ["password={}", "postgresql://trainer:{}@db.example.com/runs"]),
    "signed url": (_of(HEX, 64), ["https://bucket.s3.amazonaws.com/model?X-Amz-Expires=60&X-Amz-Signature={}"]),
    "private key": (_of(LETTERS + "+/", 64), ["-----BEGIN OPENSSH PRIVATE KEY----- {} -----END OPENSSH PRIVATE KEY-----"]),
    "nameless": (_of(LETTERS, 44), ["using {} for the upload", "Refused: {}"]),
    "swanlab login": (_of(LETTERS, 21), ["$ swanlab login -k {}", "swanlab login --api-key {} --relogin"]),
    "modelscope login": (_uuid, ['HubApi().login("{}")', "api.login('{}')"]),
    "wandb without a name": (_of(HEX, 40), ["using {} from netrc", "{}"]),
    "zhipu": (lambda dice: f"{_of(HEX, 32)(dice)}.{_of(LETTERS, 16)(dice)}", ["glm client: {}", "ZHIPUAI {}"]),
    "baidu": (lambda dice: f"bce-v3/ALTAK-{_of(LETTERS, 21)(dice)}/{_of(HEX, 40)(dice)}", ["qianfan {}"]),
    "slack app": (lambda dice: f"xapp-1-A{_of(LETTERS, 10)(dice)}-{dice.randrange(10**12, 10**13)}-{_of(HEX, 64)(dice)}", ["slack {}"]),
    "teams hook": (_of(LETTERS, 40), ["https://x.webhook.office.com/webhookb2/{}", "https://a.logic.azure.com/workflows/{}/x"]),
    "serverchan": (
        lambda dice: f"SCT{dice.randrange(10**4, 10**6)}T{_of(LETTERS, 24)(dice)}",
        ["sctapi.ftqq.com/{}.send", "key {}"],
    ),
    "bark": (_of(LETTERS, 22), ["https://api.day.app/{}/title/body"]),
    "kaggle": (_of(HEX, 32), ['{{"username": "me", "key": "{}"}}']),
    "redis": (_of(LETTERS + "!#%", 9), ["redis://:{}@10.0.0.5:6379/0", "amqp://guest:{}@mq/"]),
    "npmrc": (_of(LETTERS, 32), ["//registry.example.com/:_auth={}"]),
    "vault": (_with("hvs.", LETTERS, 24), ["vault token lookup {}"]),
    "age": (_with("AGE-SECRET-KEY-1", string.ascii_uppercase + string.digits, 58), ["{}"]),
    "postgres": (_of(LETTERS, 12), ["PGPASSWORD={} psql", "export PGPASSWORD='{}'"]),
    "database": (_of(LETTERS, 12), ["DB_PASS={}", "MYSQL_PWD={}", "REDIS_PASS: {}"]),
    "short password": (_of(LETTERS, 6), ["password={}", "passwd: {}", "MINIO_ROOT_PASSWORD={}"]),
    "sshpass": (_of(LETTERS, 9), ["sshpass -p {} ssh node1", "sshpass -p '{}' scp a b"]),
    "mysql": (_of(LETTERS, 9), ["mysql -u root -p{} runs", "mysqldump -h db -p'{}' runs"]),
    "curl": (_of(LETTERS, 9), ["curl -s -u me:{} https://x.example/", "curl --user 'me:{}' https://x.example/"]),
    "client secret": (_of(LETTERS, 24), ['"clientSecret": "{}"', "clientSecret={}"]),
    "access key secret": (_of(LETTERS, 30), ['"accessKeySecret": "{}"', "accessKeySecret: {}"]),
    "camel password": (_of(LETTERS, 10), ['"dbPassword": "{}"', "userPasswd={}"]),
    "chinese password": (_of(LETTERS, 9), ["密码：{}", "登录密码: {}", "口令={}", "密码是{}"]),
    "chinese key": (_of(LETTERS, 16), ["API 密钥：{}", "访问密钥 {}", "令牌: {}", "私钥为 {}"]),
    "korean password": (_of(LETTERS, 9), ["비밀번호: {}", "암호={}", "API 키: {}"]),
    "mail": (
        lambda dice: f"{_of(string.ascii_lowercase, 8)(dice)}@{_of(string.ascii_lowercase, 7)(dice)}.com",
        ["Logged in as {}", "owner: {}"],
    ),
}
"""Kinds of keys, passwords and addresses: how one looks, and lines that hold one."""

PRIVATE: dict[str, tuple[Callable[[random.Random], str], list[str]]] = {
    "user name": (
        _with("kim", string.ascii_lowercase, 7),
        ['  File "/home/{}/code/train.py", line 3', "No such file: /Users/{}/data.json"],
    ),
    "host name": (
        _with("gpu", string.ascii_lowercase, 5, "07"),
        ["  host      : {}.cluster.local", "{}:4242:4300 [0] NCCL INFO Bootstrap"],
    ),
    "data folder": (_with("zhao", string.ascii_lowercase, 7), ["OSError: /data/{}/models/x is full", "/mnt/data/users/{}/a.json"]),
    "slurm user": (_with("lee", string.ascii_lowercase, 6), ["SLURM_JOB_USER={}", "'PBS_O_LOGNAME': '{}'"]),
    "address 6": (
        lambda dice: f"2001:db8:{_of(HEX, 4)(dice)}::{_of(HEX, 4)(dice)}",
        ["connect to [{}]:29500 failed", "bound to {}"],
    ),
    "link address": (lambda dice: f"fe80::{_of(HEX, 4)(dice)}:{_of(HEX, 4)(dice)}:1", ["eth0 {}"]),
    "hardware address": (lambda dice: ":".join(f"{dice.randrange(256):02x}" for _ in range(6)), ["link/ether {} brd"]),
    "phone": (lambda dice: f"13{dice.randrange(10**8, 10**9)}", ["联系电话：{}", "phone: +86 {}", "手机 {}"]),
    "korean phone": (lambda dice: f"010-{dice.randrange(1000, 10000)}-{dice.randrange(1000, 10000)}", ["연락처 {}", "call {}"]),
    "chinese id": (_chinese_id, ["身份证 {}", "id {}"]),
    "korean id": (lambda dice: f"90010{dice.randrange(1, 9)}-1{dice.randrange(10**5, 10**6)}", ["주민번호 {}"]),
    "address": (
        lambda dice: f"10.{dice.randrange(1, 255)}.{dice.randrange(1, 255)}.{dice.randrange(1, 255)}",
        ["connect to {}:29500 failed"],
    ),
    "sample": (
        lambda dice: f"patient {_of(string.ascii_lowercase, 9)(dice)} says it hurts",
        ["ValueError: cannot convert {{'instruction': '{}', 'output': 'x'}}", "TypeError: bad sample: {} since Monday"],
    ),
}
"""Who, where and on what: nobody else's business."""


def planted(kinds: dict[str, tuple[Callable[[random.Random], str], list[str]]], seed: int) -> list[tuple[str, str, str]]:
    """(kind, secret, line) for every kind and every line."""
    dice = random.Random(seed)
    out = []
    for kind, (make, lines) in kinds.items():
        for line in lines:
            secret = make(dice)
            out.append((kind, secret, line.format(secret)))
    return out
