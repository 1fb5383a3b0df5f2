"""Text on which two tokenizers are compared, written for this: what a careless merge of vocabularies breaks."""

from __future__ import annotations

ENGLISH = """\
The lighthouse keeper had counted ships for thirty years before anyone asked him why. He answered that a number written
down every evening is a promise kept with the next morning, and that he had never met a captain who minded being counted.
On clear nights he could see the lamps of the fishing boats spread over the bay like a second, slower sky.
When the new railway reached the coast, the harbour lost half of its trade within two winters. The grain that used to be
carried by water now went inland by train, and the old warehouses were let to painters, who liked the light from the north.
A committee was created to decide what should become of the pier. It met eleven times, produced a report of 240 pages, and
recommended that a smaller committee should read it.
Water boils at a lower temperature on a mountain than at the sea, because the air above presses less upon its surface. For
the same reason rice takes longer to cook there, although the kettle seems to be ready sooner.
A good map leaves out nearly everything. It does not show the smell of the bakery, the dog behind the gate, or the hour at
which the shadow of the church reaches the market; it shows the streets, and trusts whoever walks them to find the rest.
My grandmother kept her letters in three boxes: one for the people she had forgiven, one for those she had not, and one for
the gas company. After her death we found that the third was by far the heaviest, and that the second was empty.
If a parcel has not arrived by the 14th of March, please call our office between 9 a.m. and 5:30 p.m., or write to us with
the number printed on your receipt. We will send another one at no cost, provided that the address was correct.
The engine was tested at 1,250 revolutions a minute for six hours, during which its temperature rose from 18.5 to 94 degrees
and then remained constant. The oil was changed twice, and nothing unusual was observed by either of the two mechanics.
She learned to read from the labels on tea chests, so that for years she believed every story ought to begin with a weight.
Nobody in the village could remember who had planted the orchard, but everybody knew exactly which tree was theirs.
"""
"""Prose."""

CHINESE = """\
小城在两条河相遇的地方，春天涨水的时候，渡口的木桩只露出一截。摆渡的老人姓何，每天清早把船擦干，再烧一壶水等第一个客人。
学校搬到山坡上以后，孩子们上学要走四十分钟的石阶。他们在路上背课文、数台阶、争论谁家的橘子先红，到了教室反而安静下来。
这家工厂过去生产缝纫机零件，如今改做医疗器械。厂长说，机器换了三代，老师傅的手艺却没有丢，精度还是靠人一点一点磨出来的。
根据监测，今年上半年全市空气质量优良天数比去年同期增加了十二天，主要河流断面水质达标率为百分之九十四点六，噪声投诉有所下降。
他在信里写道：“北方的冬天很干，窗台上的水仙却开得正好。你寄来的茶叶收到了，我分了一半给隔壁的老周，他说有海的味道。”
申请人应当在收到通知之日起十五日内提交补充材料；逾期不提交的，视为撤回申请。材料齐全的，受理机关应当在二十日内作出决定。
算法把文本切成一个个词元，再把它们变成向量。模型并不认识汉字，它只是从大量的例子里学会：哪些词元常常在一起，下一个最可能是什么。
夜里下了一场大雨，菜市场的摊主们比平时早到了半个小时，把遮雨棚一块块支起来。卖豆腐的大姐笑着说，雨水也是财，今天一定卖得快。
"""
"""Prose, simplified."""

TRADITIONAL = """\
圖書館的閱覽室裡，陽光從高窗斜斜地照進來，落在攤開的舊地圖上。管理員輕聲提醒讀者，閉館前請把書歸還原處。
漁船回港的時候，碼頭上擠滿了人。孩子們爭著數籮筐裡的魚，大人則忙著談價錢，風裡滿是鹹味與笑聲。
"""
"""Prose, traditional."""

OTHERS = """\
def mean(values: list[float]) -> float:
    return sum(values) / max(len(values), 1)  # 0.0 for none
for (int i = 0; i < n; ++i) { out[i] = a[i] * b[i] + 1e-6f; }
SELECT name, COUNT(*) FROM orders WHERE total >= 1,000.50 GROUP BY name;
\tindented\twith\ttabs
        eight spaces, then    four,   three,  two
trailing spaces   \u0020
0123456789 3.14159 1,234,567 2024-02-29 12:34:56 +44 20 7946 0018 0xDEADBEEF 50% $9.99
Çà et là, l’été s’achève ; déjà vu, garçon, naïve, œuvre, Größe, Ærø, Łódź, žluťoučký kůň, İstanbul, ñandú
“quoted” ‘single’ — dash – en … ellipsis · middle • bullet «guillemets» § ¶ © ® ™ ° ± × ÷ ≤ ≥ ≠ → ∞
Съешь же ещё этих мягких французских булок. Ξεσκεπάζω την ψυχοφθόρα βδελυγμία. שלום עולם. مرحبا بالعالم. สวัสดีชาวโลก
ひらがなとカタカナ、ｶﾀｶﾅ。日本語の文章です。
한국어 문장도 그대로 남아야 합니다. 가나다라마바사
🙂 👩‍👩‍👧‍👦 🇨🇳 👍🏽 ❤️ ∑ ∫ √ 𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𓀀 ꙮ
\u200bzero\u200bwidth\ufeffmark \u00a0no-break\u3000ideographic
\x01\x7f control \ufffd replacement \u0e01\u0300 combining a\u0301
<s> </s> <unk> <pad> <0x0A> ▁ [INST] <|endoftext|>
https://example.org/a/b?c=d&e=f#g user.name+tag@example.com C:\\Users\\x ~/path/to/file.txt
"""
"""Code, numbers, accents, other scripts, white space, bytes. Japanese shares Han characters and punctuation with Chinese;
nothing else here may be cut differently."""

MIXED = """\
第3条 The parties（以下简称“双方”）agree that 甲方 shall pay ¥1,000.50 before 2024年2月29日。
用Python写一个函数:def 求和(a, b): return a + b  # 返回两个数的和
iPhone手机的USB-C接口、5G网络和Wi-Fi 6E都已测试通过 (v2.3.1) 👍
    缩进的中文    with    runs of    空格\t和制表符
今日の天気は良い。中国語と日本語を混ぜる。한국어와 中文 섞기
α粒子、β射线和γ射线的能量≥1.5MeV；水的化学式是H₂O，温度为25℃。
微信wechat、QQ号12345，邮箱a.b@例子.cn，网址https://例子.cn/路径?q=值
龘靐齉𠮷𪚥㐀 rare characters 〇二三 ㊣ ㎡ ㏑ ﷽
"""
"""Chinese among other text: what is not Chinese may not be cut differently."""

TEXTS = {"english": ENGLISH, "others": OTHERS, "mixed": MIXED, "chinese": CHINESE, "traditional": TRADITIONAL}
"""All of them, by name."""
