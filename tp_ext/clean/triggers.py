"""Which lines are worth to be shown to the rules for lines, found for many texts at once."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from tp_ext.clean.grams import codes_of

Array = np.ndarray[Any, np.dtype[Any]]
WORDS = """
本店 售后无 店有礼 有惊喜 不表明 不表示 分享本
点在看 点“在 点"在 假一 缺一罚 七天包 包退包 尽在 全网最 货比三 诚信赢 微店 招收学 包吃包 错过再 三天拿 本章未 返回书
请收藏 联系方 保留所 浏览： 浏览: 发布： 发布:
微信 薇信 威信 徽信 二维码 小程序 公众号 公众： 公众: 关注 订阅号 服务号 视频号 扣扣 抠抠 企鹅 旺旺 抖音 快手 群号
进群 入群 加群 加微 加入 加我 加为 加V 加v 加Ｖ 加q 加Q 加扣 +V +v ＋V ＋v 添加
QQ Qq qq ＱＱ Q群 q群 WX wx VX Vx vx V信 v信 Ｖ信 Wec wec WeC V: v: V： v： V+ v+ V＋ v＋ TEL Tel tel Ema ema E-m e-m
E-M EMA
电话 手机 热线 传真 专线 座机 总机 邮箱 邮编 邮件 邮政编 信箱 地址 网址 官网 官方微 官方网 官方Q 网站首 网站地 网站标
淘宝店 客服 联系 负责人 工作时 营业时 办公时 淘宝 京东 百度搜 百度上 小红书 微博
点击 点此 点赞 点我 点个 点点 点下 点一下 点链 点上 点左 点右 点标 点文 点底 点蓝 戳 双击666 一键 扫码 扫描 扫一 扫二
扫上 扫下 扫左 扫右 扫此 长按 识别二 识别图 识别上 识别下 复制 口令 打开手 下载 安装本 安装官 安装手 安装客 安装A
立即 马上 赶紧 赶快 快来 即刻 速来 火速 快快 现在就 现在报 现在下 现在位 抢购 选购 订购 预订 下单 优惠 特价 特惠 包邮
秒杀 限时 限量 免费 免广告 注册送 注册即 注册会 注册立 报名 咨询 欢迎 敬请 诚请
新用户 新会员 新人 新客 首单 首次 到店 进店 开户 满1 满2 满3 满4 满5 满6 满7 满8 满9 充1 充2 充3 充5 充值 购卡 全场
立享 可享 即享 再享 尊享 售完即 先到先 手慢无 名额 仅剩 速抢 手快有 非诚勿 拎包入 面议 数量有 送完为 送完即
量大从 厂家直 一件代 无需囤 货到付 无效退 支持七 支持7 七天无 七天见 假一赔 上门取 领取 领优 领红 领福 领资 领精 领礼
领代 领彩 领大 抽奖 抽取 抽一 抽三 抽两 抽五 抽十 抽1 抽2 抽3 抽5 送好礼 抽好礼 精美礼 回复 评论区 扣1 私信我
招商 诚招 招募 代开发 代写论 代写毕 快速办 办理各 无抵押 当天放 秒批 低息贷 兼职日 日赚 月入 月薪轻 稳赚不 内幕消 推荐
送彩金 真人在 月瘦 高价回 专业疏 专业承 专业办 专业生 专业代 专业清 专治 承接各 包过不 祛斑祛 正规机 十年品 仅限今
仅限本
开通 VIP 最新章 一秒记 记住本 手机用 手机版 请到本 本站 收藏 求收藏 求推荐 书架 书签 请五星 好评哦 好评亲 五星 打赏作
给作者 提取码 解压密 购买正 正热卖 在热卖 火热招 火热报 火热预 火热销 转发 拉你 让更多 更多 精彩
版权 &co (c) (C) （c） （C） Cop cop COP All ALL ICP 公安网 公网安 网文 许可证 转载 注明来 注明出 注明转 如有侵 侵犯
涉及侵 涉及版 涉及权 不代表 仅代表 最终解 镜像 摘编 抄袭 盗用 使用 来源于 来自网 来自互 来自微 来自公 源于网 源于互
上一页 上一篇 上一章 上一条 上一则 下一页 下一篇 下一章 下一条 下一则 首页 尾页 末页 主页 返回首 返回顶 返回列 返回目
返回上 返回主 返回书 回顶部 回到顶 顶部 位置： 位置: 位置是 位置在 责任编 责编 编辑： 编辑: 校对： 校对: 审核： 审核:
初审： 终审： 初审: 终审:
监制 来源： 来源: 稿源： 稿源: 作者： 作者: 次数： 次数: 击数： 击数: 击量： 击量: 览量： 览量: 时间： 时间: 日期：
日期: 录入 法律顾 主办单 主办： 主办: 承办单 承办： 承办: 技术支 标识码 关键词 标签： 标签: Tag tag 相关链 相关阅
相关新 相关文 推荐阅 延伸阅 往期 热门
分享到 分享至 打印 原标题 由 建议使 【收藏 【关闭 【字号 【大 【返回 【推荐 【纠错 【我要 【放大 【缩小 【字体 【复制
[收藏 [关闭 [字号 [大 [返回 [推荐 [纠错 [我要 [放大 [缩小 [字体 [复制
关闭窗 查看更 查看全 阅读全 阅读原 展开全 收起 点击展 加载更 显示全 猜你喜 为您推 忘记密 找回密 在线留 设为首 加入收
友情链 隐私政 意见反 帮助中 广告服 人才招 章节目 目录 报错 投推荐 关于我 阅读 浏览 评论 分享 围观 举报
htt ww @
"""
"""Words of which every line that a rule takes has the first two or three characters in it, if it has none of those below."""
ALONE, BEFORE_SPACE = "©Ⓒ@戳", "电手传邮地网共第来作阅浏评点转分围回收"
BEFORE_NUMBER = "阅读 浏览 点击 评论 点赞 转发 收藏 分享 回复 围观 在看 共 第"
WINDOW, MARKS, DIGITS = 8, 5, 6
"""So many symbols among so many characters may be a line of symbols, so many digits a telephone number."""
_BITS, _FACTOR = 22, np.uint64(0x9E3779B97F4A7C15)
_SYMBOL = re.compile(r"[^\w\s，。、；：？！“”‘’（）《》—…·,.;:?!'\"()\-]")


def worth_a_look(texts: Sequence[str]) -> list[list[int]]:
    """Of each text the numbers of those lines that a rule for lines could take."""
    codes = codes_of("\n".join(texts) + "\n\n")
    pairs = _hash(codes[:-1], codes[1:])
    found = _table(2).take(pairs[:-1])
    found |= _table(3).take(_hash(pairs[:-1], codes[2:]))
    found |= _characters(ALONE).take(codes[:-2])
    for table, most in ((_symbols(), MARKS), (_characters("0123456789"), DIGITS)):
        count = np.cumsum(table.take(codes[:-1]), dtype=np.int32)
        found[WINDOW - 1 :] |= count[WINDOW:] - count[:-WINDOW] >= most
    ends = np.flatnonzero(codes[:-1] == ord("\n"))
    worth = np.unique(np.searchsorted(ends, np.flatnonzero(found)))
    firsts = np.cumsum([0, *(text.count("\n") + 1 for text in texts)])
    cuts = np.searchsorted(worth, firsts).tolist()
    ranges = zip(cuts[:-1], cuts[1:], firsts.tolist()[:-1], strict=True)
    return [(worth[start:stop] - first).tolist() for start, stop, first in ranges]


@cache
def _table(width: int) -> Array:
    """Whether so many characters begin a word, by their hash; some that begin none seem to."""
    words = [word[:3] for word in WORDS.split()] + [first + space for first in BEFORE_SPACE for space in " \u3000"]
    words += [word + mark for word in BEFORE_NUMBER.split() for mark in "0123456789 (（:："]
    codes = codes_of("".join(word for word in words if len(word) == width)).reshape(-1, width)
    hashes = _hash(codes[:, 0], codes[:, 1])
    table = np.zeros(1 << _BITS, dtype=bool)
    table[hashes if width == 2 else _hash(hashes, codes[:, 2])] = True
    return table


@cache
def _characters(characters: str) -> Array:
    table = np.zeros(0x110000, dtype=bool)
    table[codes_of(characters)] = True
    return table


@cache
def _symbols() -> Array:
    return _characters("".join(_SYMBOL.findall("".join(map(chr, (*range(0xD800), *range(0xE000, 0x20000)))))))


def _hash(first: Array, second: Array) -> Array:
    pairs: Array = (first.astype(np.uint64) << np.uint64(21) | second) * _FACTOR >> np.uint64(64 - _BITS)
    return pairs
