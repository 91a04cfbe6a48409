//! Describes a scene: captions, lists, JSON. A text depends only on the scene, so an answer is either identical or
//! wrong. The same texts as `models/train/wording.py`.

use super::{Kind, Scene, Size, Thing};

const NUMBERS: [&str; 7] = ["no", "one", "two", "three", "four", "five", "six"];
const PLACES: [[&str; 3]; 3] = [
    ["top left", "top", "top right"],
    ["left", "center", "right"],
    ["bottom left", "bottom", "bottom right"],
];
const PLACES_ZH: [[&str; 3]; 3] = [
    ["左上角", "上方", "右上角"],
    ["左边", "中间", "右边"],
    ["左下角", "下方", "右下角"],
];

impl Size {
    /// `small`
    pub fn name(self) -> &'static str {
        match self {
            Self::Small => "small",
            Self::Large => "large",
        }
    }

    fn chinese(self) -> &'static str {
        match self {
            Self::Small => "小",
            Self::Large => "大",
        }
    }
}

impl Kind {
    /// `circle`
    pub fn name(self) -> &'static str {
        self.names().0
    }

    /// English and Chinese.
    fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Circle => ("circle", "圆形"),
            Self::Square => ("square", "方形"),
            Self::Triangle => ("triangle", "三角形"),
            Self::Star => ("star", "星形"),
            Self::Heart => ("heart", "心形"),
            Self::Ring => ("ring", "圆环"),
            Self::Cross => ("cross", "十字"),
            Self::Diamond => ("diamond", "菱形"),
            Self::Number => ("number", "数字"),
        }
    }
}

impl Thing {
    /// `circle`, or `number 7`.
    pub fn noun(&self) -> String {
        match self.kind {
            Kind::Number => format!("number {}", self.digit),
            shape => shape.name().to_owned(),
        }
    }

    /// `red circle`
    pub fn color_noun(&self) -> String {
        format!("{} {}", self.color.name(), self.noun())
    }

    /// `large red circle`
    pub fn full(&self) -> String {
        format!("{} {}", self.size.name(), self.color_noun())
    }

    /// `top left`
    pub fn place(&self) -> &'static str {
        PLACES[usize::from(self.row)][usize::from(self.col)]
    }

    /// `大的红色圆形`
    fn chinese(&self) -> String {
        let noun = match self.kind {
            Kind::Number => format!("数字{}", self.digit),
            shape => shape.names().1.to_owned(),
        };
        format!("{}的{}{noun}", self.size.chinese(), self.color.chinese())
    }
}

impl Scene {
    /// One sentence: `A large red circle on the left and a small blue square on the right on a
    /// white background.`
    pub fn brief(&self) -> String {
        let thing = |t: &Thing| format!("{} {}", article(&t.full()), at(t.place()));
        let things = joined(&self.things.iter().map(thing).collect::<Vec<_>>());
        let ground = article(self.ground.name());
        format!("{} on {ground} background.", capital(&things))
    }

    /// `a large red circle and a small blue square`: how an English article describes a picture.
    pub fn subject(&self) -> String {
        let things: Vec<_> = self.things.iter().map(|t| article(&t.full())).collect();
        joined(&things)
    }

    /// `大的红色圆形和小的蓝色方形`: how a Chinese article describes a picture.
    pub fn subject_chinese(&self) -> String {
        let things: Vec<_> = self.things.iter().map(Thing::chinese).collect();
        things.join("和")
    }

    /// One sentence for the whole scene and one for each thing.
    pub fn detailed(&self) -> String {
        let (objects, ground) = (self.objects(), article(self.ground.name()));
        let thing = |t: &Thing| {
            let (place, full) = (capital(&at(t.place())), article(&t.full()));
            format!(" {place} there is {full}.")
        };
        let things: String = self.things.iter().map(thing).collect();
        format!("The image shows {objects} on {ground} background.{things}")
    }

    /// `白色背景上，左边有一个大的红色圆形，右边有一个小的蓝色方形。`
    pub fn chinese(&self) -> String {
        let thing = |t: &Thing| {
            let place = PLACES_ZH[usize::from(t.row)][usize::from(t.col)];
            format!("{place}有一个{}", t.chinese())
        };
        let things: Vec<_> = self.things.iter().map(thing).collect();
        format!("{}背景上，{}。", self.ground.chinese(), things.join("，"))
    }

    /// A numbered list.
    pub fn listed(&self) -> String {
        let line = |(i, t): (usize, &Thing)| format!("{i}. {}, {}", t.full(), t.place());
        let lines: Vec<_> = (1..).zip(&self.things).map(line).collect();
        lines.join("\n")
    }

    /// An array of objects; valid JSON.
    pub fn json(&self) -> String {
        let row = |t: &Thing| {
            format!(
                r#"{{"size": "{}", "color": "{}", "shape": "{}", "position": "{}"}}"#,
                t.size.name(),
                t.color.name(),
                t.noun(),
                t.place()
            )
        };
        let rows: Vec<_> = self.things.iter().map(row).collect();
        format!("[{}]", rows.join(", "))
    }

    /// `There are three objects.`
    pub(super) fn count_sentence(&self) -> String {
        let verb = if self.things.len() == 1 { "is" } else { "are" };
        format!("There {verb} {}.", self.objects())
    }

    /// `three objects`
    fn objects(&self) -> String {
        let plural = if self.things.len() == 1 { "" } else { "s" };
        format!("{} object{plural}", NUMBERS[self.things.len()])
    }
}

/// `a red star`, `an orange star`
pub(super) fn article(words: &str) -> String {
    let an = words.starts_with(['a', 'e', 'i', 'o', 'u']);
    format!("{} {words}", if an { "an" } else { "a" })
}

/// `on the left`, `at the top left`, `in the center`
pub(super) fn at(place: &str) -> String {
    match place {
        "left" | "right" => format!("on the {place}"),
        "center" => "in the center".to_owned(),
        _ => format!("at the {place}"),
    }
}

/// First letter in upper case.
fn capital(text: &str) -> String {
    let (first, rest) = text.split_at(1);
    first.to_ascii_uppercase() + rest
}

/// `a, b and c`
fn joined(parts: &[String]) -> String {
    match parts {
        [] => String::new(),
        [one] => one.clone(),
        [most @ .., last] => format!("{} and {last}", most.join(", ")),
    }
}
