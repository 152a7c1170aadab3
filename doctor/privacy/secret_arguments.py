"""Secrets that their command or file gives away: logins, tools that take a password, XML, JSON web keys, .pgpass, kaggle.json."""

from __future__ import annotations

import re

from doctor.support.lazy_regex import lazy_compile

ARGUMENTS: tuple[tuple[tuple[str, ...], re.Pattern[str]], ...] = tuple(
    (words, lazy_compile(pattern))
    for words, pattern in (
        (
            ("swanlab", "wandb", "hf", "huggingface-cli", "modelscope"),
            r"(\b(?:swanlab|wandb|hf|huggingface-cli|modelscope)\s[^\n|]{0,80}?"
            r"(?:-k|--(?:api[-_])?key|--token)[ =](?:\\*[\"'])?)[^\s\"']{6,}",
        ),
        (("obsutil",), r"(\bobsutil\s+config\b[^\n]{0,200}?\s-k=)\S+"),
        (("login(",), r"(\blogin\(\s*(?:\w+\s*=\s*)?\\*[\"'])[^\"'\s]{8,}"),
        (("sshpass",), r"(\bsshpass\s+-p\s*(?:\\*[\"'])?)[^\s\"']+"),
        (("mysql", "mariadb"), r"(\b(?:mysql|mysqldump|mysqladmin|mariadb)\b[^\n|;]{0,120}?\s-p(?:\\*[\"'])?)[^\s\"'-][^\s\"']*"),
        (("curl",), r"(\bcurl\b[^\n|;]{0,200}?\s(?:-u|--user)[ =](?:\\*[\"'])?[^\s:\"']{1,80}:)[^\s\"']+"),
        (
            ("--",),
            r"(--(?:[a-z0-9]{1,20}-){0,3}(?:pass(?:w(?:or)?d|phrase)?|pwd|secret|(?:api|secret|access)-?key)"
            r"(?:[ =]|\\*[\"']\s*,\s*)(?:\\*[\"'])?)(?!-|\d+\b)[^\s\"']{3,}",
        ),
        (("7z",), r"(\b7z[arz]?\s[^\n|;]{0,120}?\s-p)[^\s\"']+"),
        (
            ("login",),
            r"(\b(?:docker|podman|nerdctl|helm|skopeo|oras|singularity|apptainer)\b"
            r"[^\n|;]{0,40}\blogin\b[^\n|;]{0,120}?\s-p[ =]?)[^\s\"']+",
        ),
        (("sudo",), r"(\becho\s+[\"']?)[^\s\"'|]{3,}(?=[\"']?\s*\|\s*sudo\b)"),
        (("lftp",), r"(\blftp\b[^\n|;]{0,80}?\s-u\s+[^\s,]{1,80},)[^\s\"']+"),
        (("pass:",), r"(\bpass:)[^\s\"']{3,}(?=[\s\"']|$)"),
        (("redis-cli",), r"(\bredis-cli\b[^\n|;]{0,120}?\s-a\s+)[^\s\"']+"),
        (("smbclient",), r"(\bsmbclient\b[^\n|;]{0,120}?\s-U\s*[^\s%]{1,80}%)[^\s\"']+"),
        (("sqlcmd", "zip"), r"(\b(?:sqlcmd|unzip|zip)\b[^\n|;]{0,120}?\s-P\s*)[^\s\"'-][^\s\"']*"),
        (("bindpw",), r"(\bbindpw\s+)\S{3,}"),
        (("</",), r"(<[\w:.-]{0,40}(?:password|passwd|secret|token|api-?key)>\s*)[^<\s]{3,}(?=\s*</)"),
        (("pass",), r"([\"']pass\\*[\"']\s*:\s*\\*[\"'])[^\s\"'\\]{3,}"),
        (("kty",), r"([\"'](?:d|p|q|dp|dq|qi|k)\\*[\"']\s*:\s*\\*[\"'])[A-Za-z0-9_-]{20,}(?=\\*[\"'])"),
        (("key/", "token/"), r"(https?://[^\s\"'<>?]{1,200}/(?:key|token|api-?key)/)[A-Za-z0-9_-]{12,}"),
        (("htpasswd",), r"(\bhtpasswd\s+-\w*b\w*\s+\S+\s+\S+\s+)\S+"),
        (
            (":5432:", ":5433:", ":6432:", ":5439:", ":*:"),
            r"((?<![^\s\"'])[\w*-]{1,80}(?:\.(?!py\b)[\w-]{1,80}){0,8}:(?:\d{4,5}|\*):"
            r"[\w*.-]{1,80}:[\w.-]{1,80}:)[^\s\"']{6,}(?=[\s\"']|$)",
        ),
        (("key",), r"([\"']key\\*[\"']\s*:\s*\\*[\"'])[0-9a-f]{32}(?=\\*[\"'])"),
    )
)
"""(Words of which one stands in the text, expression): the group stays, what follows it is the secret."""
