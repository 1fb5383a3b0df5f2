"""The rule for lines that are nothing but how to reach someone."""

from __future__ import annotations

import re

from tp_ext.clean.narrative import telling
from tp_ext.clean.rule import Judge, Rule, Verdict, kept

_NETWORK = (
    "(?:微信|薇信|威信|徽信|(?<![A-Za-z0-9/@_.])(?:VX|WX|wx|vx|[VvＶ]信|[Ww]e[Cc]hat|[QqＱ]{2}群?|[QqＱ]群)"
    "|[扣抠]{2}群?|企鹅群?|群号?"
    "|旺旺|淘宝店铺|抖音|快手|(?:官方)?(?:微博|微信|网站|网址|QQ群?)|公众号)"
)
_PHONE = (
    "(?:(?:免费|全国|24小时|24时|二十四小时|售楼|售后|服务|客服|咨询|投诉|举报|爆料|新闻|订购|订餐|预订|预约|报名"
    "|联系|招商|加盟|招聘|业务|监督"
    "|销售|合作|办公|值班|技术|支持|热线|统一|固定|移动|贵宾|报警|总机|本店|门店|座机|公司|单位|编辑部)*(?:电话|热线"
    "|手机|专线|联系方式|传真|座机|(?<![A-Za-z])[Tt][Ee][Ll](?![A-Za-z])|电\\s*话|手\\s*机|传\\s*真))"
)
_MAIL = (
    "(?:(?:投稿|联系|举报|客服|合作|公司|电子|官方|商务|企业|投诉|简历)*(?:邮箱|信箱|邮件"
    "|(?<![A-Za-z])[Ee]-?[Mm]ail(?![A-Za-z])|邮\\s*箱))"
)
_PLACE = (
    "(?:(?:公司|店铺|本店|门店|联系|详细|办公|工厂|厂|店|校区|总部|医院|售楼处)?地\\s*址|邮编|邮政编码|联系人|客服"
    "|总机|工作时间|营业时间|办公时间|负责人|网\\s*址|官网)"
)
_NUMBER = (
    r"(?:(?:\+"
    r"|00)?86[- ]?)?(?:\(?0\d{2,3}\)?[-—－– ]{0,2})?[1-9][\d*Xx×]{2,4}[-—－– ]?[\d*×]{3,4}(?:[-—－– ]?[\d*×]{1,5})?"
)
_ACCOUNT = "[A-Za-z0-9][A-Za-z0-9_.-]{3,24}"
_ADDRESS = r"[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,}|(?:https?://|www\.)[\x21-\x7e]+"
_BETWEEN = (
    r"[ \t\u3000]*(?:号码?|ID|id|号是|账号|帐号|方式|如下|为|是|请加|加|\(\S{1,8}\)|（\S{1,8}）)?[ \t\u3000]*[:：/／"
    r"|~\-—]*[ \t\u3000]*"
)
FIELD = re.compile(
    f"(?:{_NETWORK}|{_PHONE}|{_MAIL}){_BETWEEN}(?:{_ADDRESS}|{_NUMBER}|{_ACCOUNT}|@\\S{{2,20}})"
    f"|{_PHONE}{_BETWEEN}\\d{{5,8}}(?!\\d)|{_PLACE}[ \t\u3000]*[:：][^\\s，。；]{{2,40}}"
    f"|(?<![A-Za-z0-9/@_.])(?:[VvＶ]信?[+＋:：]|[+＋加][VvＶ][:： ]?){_ACCOUNT}"
)
"""A label with what it names."""
BARE = re.compile(
    r"(?<![A-Za-z\d.])(?:1[3-9]\d{9}|1[3-9]\d[- ]\d{4}[- ]\d{4}|0\d{2,3}[-—－ ]{1,2}\d{7,8}|[48]00[- ]?\d{3,4}[- ]?\d{3,4}"
    r"|(?!20\d{6}|(\d)\1{5})[2-9]\d{6,8})(?![\d.年%元])|[A-Za-z0-9._%+-]+@[A-Za-z0-9-]+\.[A-Za-z.]{2,12}"
)
"""A telephone number or an e-mail address."""
_NAME = re.compile(r"\d{5}|\d[-—－–* ]{1,2}\d{3}|[A-Za-z0-9_.@*-]{4}|[:：]")
"""What each of these has in it."""
_PASSING = re.compile(
    "(?:欢迎|敬请|请|可|有意者?|有意向者?|需要的?|如有|需求|疑问|问题|合作|广告|商务|业务|技术|投稿|详情|详询|咨询"
    "|联系|洽谈|拨打|致电|来电|添加|加|者"
    "|更多|了解|我们|我|方式|备注|小编|老师|客服|经理|女士|先生|小姐|主任|同学|微信|电话|手机|官方|免费|小时|时间"
    "|工作|营业|周[一二三四五六日]至?|全天|日|或|和|及|与|转|本人|个人|真实|有效"
    "|[A-Za-z0-9_.:：+&/\\-]+|\\W)*"
)
_STREET = re.compile(
    "^[^\\s，。；：]{2,12}(?:省|市|区|县|镇|路|街|大道|巷)[^\\s，。；：]{0,20}(?:号|室|楼|层|座|厦|园"
    "|栋)[^\\s，。；：]{0,10}"
)
_LONGEST = 200


def reaches(line: str) -> bool:
    """Whether it says how to reach someone."""
    return _NAME.search(line) is not None and (FIELD.search(line) is not None or BARE.search(line) is not None)


def _contact(line: str) -> Verdict:
    if len(line) > _LONGEST or not _NAME.search(line):
        return kept(line)
    fields = list(FIELD.finditer(line))
    if not fields:
        return kept(line)
    rest = _STREET.sub("", FIELD.sub("", line))
    beside = len(_PASSING.sub("", rest))
    inside = sum(len(found[0]) for found in fields)
    few = beside <= 3 if len(fields) == 1 else beside <= 10 + 4 * len(fields)
    if telling(line) or not (few or (2 * beside < inside and beside <= 16)):
        return kept(line)
    return None, "contact"


def _make(_: bool) -> Judge:
    return _contact


CONTACT = Rule(
    name="contact", make=_make,
    drops=("联系电话：010-88886666", "QQ：123456789 微信：abc_12345", "联系人：李女士 手机：15012345678",
           "举报电话：010-12345678 举报邮箱：jubao@example.cn"),
    spares=("申请书应当载明申请人的姓名、地址和联系电话。", "他的QQ号是12345678，我一直没有忘。",
            "如果发现火情，请立即拨打119。",
            "QQ 2008 正式版发布", "电话是贝尔在1876年发明的。", "红十字会财产的主要来源："),
)  # fmt: skip
