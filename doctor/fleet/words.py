"""The fixed words of scans and comparisons, in every language of the reports."""

from __future__ import annotations

from doctor.fleet.guilty import Explanation, Suspect
from doctor.rulebook import Text

STATES: dict[str, Text] = {
    "failed": Text("failed", "실패"),
    "sound": Text("sound", "정상"),
    "unclear": Text("unclear", "알 수 없음"),
    "unreadable": Text("unreadable", "읽을 수 없음"),
    "too_slow": Text("cut off: too slow", "시간 초과로 중단"),
    "too_large": Text("cut off: too much memory", "메모리 초과로 중단"),
    "crashed": Text("analysis crashed", "분석 중 비정상 종료"),
}
VERDICTS: dict[str, Text] = {
    "first": Text("first attempt", "첫 시도"),
    "helped": Text("helped", "효과 있음"),
    "other_failure": Text("another failure", "다른 원인으로 실패"),
    "no_help": Text("did not help", "효과 없음"),
    "repeated": Text("nothing changed, same failure", "변경 없이 같은 실패"),
    "broke": Text("broke it", "실패를 일으킴"),
    "unknown": Text("cannot tell", "판단할 수 없음"),
}
SAY: dict[str, Text] = {
    "title": Text("Training runs", "학습 실행"),
    "runs": Text("runs", "실행"),
    "causes": Text("What failed and why", "무엇이 왜 실패했나"),
    "clusters": Text("Failures that no rule knows", "규칙이 없는 실패"),
    "cluster_help": Text(
        "A draft of a rule for one of them: lfdoctor rules draft ID --scan FILE", "규칙 초안 만들기: lfdoctor rules draft ID --scan FILE"
    ),
    "guilty": Text("What separates failed runs from good ones", "실패한 실행과 정상 실행을 가르는 차이"),
    "history": Text("Jobs and their attempts", "작업별 시도"),
    "timeline": Text("When runs ended", "실행이 끝난 시각"),
    "all": Text("all", "전체"),
    "filter": Text("filter", "찾기"),
    "report": Text("report", "보고서"),
    "path": Text("run", "실행"),
    "state": Text("state", "상태"),
    "cause": Text("cause", "원인"),
    "evidence": Text("evidence", "근거"),
    "steps": Text("steps", "스텝"),
    "loss": Text("loss", "손실"),
    "ended": Text("ended", "종료"),
    "job": Text("job", "작업"),
    "model": Text("model", "모델"),
    "size": Text("bytes", "바이트"),
    "more": Text(
        "The page shows the first {shown} of {total} runs, failed ones first; the table holds all.",
        "{total}개 중 실패한 것부터 {shown}개를 표시합니다. 전체는 표 파일에 있습니다.",
    ),
    "good_failed": Text("{good} good, {failed} failed", "정상 {good}개, 실패 {failed}개"),
    "cannot_tell": Text(
        "Cannot tell: no difference separates failed from good runs better than chance would.",
        "판단할 수 없음: 우연보다 뚜렷하게 실패를 가르는 차이가 없습니다.",
    ),
    "all_failed": Text("Cannot tell: every run failed.", "판단할 수 없음: 모든 실행이 실패했습니다."),
    "none_failed": Text("No run failed.", "실패한 실행이 없습니다."),
    "no_difference": Text("Cannot tell: the runs do not differ in anything that is known.", "판단할 수 없음: 알려진 차이가 없습니다."),
    "suspect": Text(
        "{key} {question}: {failed_with} of {with_} failed, otherwise {failed_without} of {without} (p {adjusted})",
        "{key} {question}: {with_}개 중 {failed_with}개 실패, 그 외 {without}개 중 {failed_without}개 실패 (p {adjusted})",
    ),
    "same": Text("cannot be told apart from {names}", "{names}와(과) 구별할 수 없음"),
    "differences": Text("Differences", "차이"),
    "curves": Text("Learning curves", "학습 곡선"),
    "named_first": Text("Options that the diagnosis would change stand first.", "진단에서 변경을 권하는 옵션이 먼저 나옵니다."),
    "next": Text("next", "다음"),
    "previous": Text("previous", "이전"),
    "nothing": Text("none", "없음"),
    "left_out": Text("{count} logs that are no training runs were left out", "학습 실행이 아닌 로그 {count}개는 제외했습니다"),
}


def say(name: str, lang: str, **values: object) -> str:
    """A sentence in one language, its placeholders filled."""
    return SAY[name].in_language(lang).format(**values)


def verdict(found: Explanation, lang: str) -> str:
    """The answer in one sentence, empty where a guilty change was found: the suspects speak for themselves."""
    return "" if found.verdict == "found" else say(found.verdict, lang)


def suspect(one: Suspect, lang: str) -> str:
    """A suspect in one sentence."""
    text = say(
        "suspect",
        lang,
        key=one.key,
        question=one.question,
        failed_with=one.failed_with,
        with_=one.with_,
        failed_without=one.failed_without,
        without=one.without,
        adjusted=f"{one.adjusted:.3f}",
    )
    return f"{text}; {say('same', lang, names=', '.join(one.same))}" if one.same else text
