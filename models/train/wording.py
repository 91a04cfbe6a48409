"""How a scene is told: captions, lists, JSON, and the small words that the tasks share; in English and in Chinese.

A text is a function of the scene alone, so an answer is right or wrong to the letter.
"""

NUMBERS = "no one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen".split()
PLURALS = {"cross": "crosses"}

COLOR_ZH = dict(
    red="红色",
    orange="橙色",
    yellow="黄色",
    green="绿色",
    cyan="青色",
    blue="蓝色",
    purple="紫色",
    pink="粉色",
    white="白色",
    black="黑色",
)
GROUND_ZH = {
    "white": "白色",
    "black": "黑色",
    "gray": "灰色",
    "light blue": "浅蓝色",
    "beige": "米色",
    "light green": "浅绿色",
    "dark blue": "深蓝色",
}
KIND_ZH = dict(
    circle="圆形",
    square="方形",
    triangle="三角形",
    star="星形",
    heart="心形",
    ring="圆环",
    cross="十字",
    diamond="菱形",
    number="数字",
)
SIZE_ZH = dict(small="小", large="大")
PLACE_ZH = {
    "top left": "左上角",
    "top": "上方",
    "top right": "右上角",
    "left": "左边",
    "center": "中间",
    "right": "右边",
    "bottom left": "左下角",
    "bottom": "下方",
    "bottom right": "右下角",
}
NUMBER_ZH = ["零", "一", "两", "三", "四", "五", "六"]


def article(words):
    """`a red star`, `an orange star`"""
    return ("an " if words[0] in "aeiou" else "a ") + words


def capital(text):
    """First letter in upper case."""
    return text[0].upper() + text[1:]


def plural(noun):
    """`crosses`, `stars`"""
    return PLURALS.get(noun, noun + "s")


def joined(parts):
    """`a, b and c`"""
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


def at(place):
    """`on the left`, `at the top left`, `in the center`"""
    return {"left": "on the left", "right": "on the right", "center": "in the center"}.get(place, "at the " + place)


def count_of(number, noun):
    """`one star`, `two stars`, `no stars`"""
    return f"{NUMBERS[number]} {noun if number == 1 else plural(noun)}"


def there_are(number, noun):
    """`There is one star.`"""
    return f"There {'is' if number == 1 else 'are'} {count_of(number, noun)}."


def brief(scene):
    """One sentence: `A large red circle on the left and a small blue square on the right on a white background.`"""
    things = joined([f"{article(t.full)} {at(t.place)}" for t in scene.things])
    return f"{capital(things)} on {article(scene.ground)} background."


def detailed(scene):
    """A sentence for the whole and one for each thing."""
    text = f"The image shows {count_of(len(scene.things), 'object')} on {article(scene.ground)} background."
    return text + "".join(f" {capital(at(t.place))} there is {article(t.full)}." for t in scene.things)


def listed(scene):
    """A numbered list."""
    return "\n".join(f"{i}. {t.full}, {t.place}" for i, t in enumerate(scene.things, 1))


def as_json(scene):
    """An array of objects; valid JSON."""
    row = '{"size": "%s", "color": "%s", "shape": "%s", "position": "%s"}'
    return "[" + ", ".join(row % (t.size, t.color, t.noun, t.place) for t in scene.things) + "]"


def thing_zh(thing):
    """`大的红色圆形`"""
    noun = KIND_ZH[thing.kind] + (str(thing.digit) if thing.kind == "number" else "")
    return f"{SIZE_ZH[thing.size]}的{COLOR_ZH[thing.color]}{noun}"


def brief_zh(scene):
    """`白色背景上，左边有一个大的红色圆形，右边有一个小的蓝色方形。`"""
    things = "，".join(f"{PLACE_ZH[t.place]}有一个{thing_zh(t)}" for t in scene.things)
    return f"{GROUND_ZH[scene.ground]}背景上，{things}。"


def subject(scene):
    """`a large red circle and a small blue square`: what an article says of a picture."""
    return joined([article(t.full) for t in scene.things])
