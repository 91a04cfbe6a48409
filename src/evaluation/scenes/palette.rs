//! Colours of things and backgrounds: names and shades.

use serde::{Deserialize, Serialize};

type Rgb = [u8; 3];

/// The colour of a thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Color {
    Red,
    Orange,
    Yellow,
    Green,
    Cyan,
    Blue,
    Purple,
    Pink,
    White,
    Black,
}

/// The colour of the background.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum Ground {
    #[serde(rename = "white")]
    White,
    #[serde(rename = "black")]
    Black,
    #[serde(rename = "gray")]
    Gray,
    #[serde(rename = "light blue")]
    LightBlue,
    #[serde(rename = "beige")]
    Beige,
    #[serde(rename = "light green")]
    LightGreen,
    #[serde(rename = "dark blue")]
    DarkBlue,
}

/// A row of a table: English, Chinese, shades.
type Row = (&'static str, &'static str, &'static [Rgb]);

#[rustfmt::skip]
const COLORS: [Row; 10] = [
    ("red", "红色", &[[220, 30, 35], [255, 0, 0], [205, 25, 45], [230, 40, 30]]),
    ("orange", "橙色", &[[245, 130, 20], [255, 165, 0], [255, 140, 0]]),
    ("yellow", "黄色", &[[250, 220, 30], [255, 255, 0], [255, 230, 20]]),
    ("green", "绿色", &[[30, 160, 60], [0, 128, 0], [0, 215, 0], [40, 140, 40], [0, 255, 0]]),
    ("cyan", "青色", &[[40, 200, 215], [0, 255, 255], [0, 210, 210]]),
    ("blue", "蓝色", &[[35, 75, 210], [0, 0, 255], [65, 105, 225], [20, 60, 190]]),
    ("purple", "紫色", &[[125, 45, 165], [128, 0, 128], [148, 0, 211], [110, 30, 150]]),
    ("pink", "粉色", &[[250, 140, 185], [255, 190, 203], [255, 105, 180], [255, 150, 190]]),
    ("white", "白色", &[[250, 250, 250], [255, 255, 255]]),
    ("black", "黑色", &[[20, 20, 20], [0, 0, 0]]),
];

#[rustfmt::skip]
const GROUNDS: [Row; 7] = [
    ("white", "白色", &[[255, 255, 255], [246, 246, 246]]),
    ("black", "黑色", &[[0, 0, 0], [20, 20, 20]]),
    ("gray", "灰色", &[[128, 128, 128], [158, 158, 158], [112, 112, 112]]),
    ("light blue", "浅蓝色", &[[173, 216, 230], [190, 220, 250]]),
    ("beige", "米色", &[[245, 235, 205], [245, 245, 220], [235, 220, 185]]),
    ("light green", "浅绿色", &[[190, 235, 190], [170, 230, 170]]),
    ("dark blue", "深蓝色", &[[15, 25, 80], [0, 0, 100], [25, 35, 95]]),
];

impl Color {
    /// All colours, in the order used for drawing.
    #[rustfmt::skip]
    pub const ALL: [Self; 10] = [
        Self::Red, Self::Orange, Self::Yellow, Self::Green, Self::Cyan,
        Self::Blue, Self::Purple, Self::Pink, Self::White, Self::Black,
    ];

    /// `red`
    pub fn name(self) -> &'static str {
        COLORS[self as usize].0
    }

    /// `红色`
    pub fn chinese(self) -> &'static str {
        COLORS[self as usize].1
    }

    pub(super) fn shades(self) -> &'static [Rgb] {
        COLORS[self as usize].2
    }

    /// Whether a thing of this colour is visible on this background.
    pub(super) fn shows_on(self, ground: Ground) -> bool {
        !matches!(
            (self, ground),
            (Self::White, Ground::White | Ground::Beige)
                | (Self::Black, Ground::Black | Ground::DarkBlue)
                | (Self::Cyan, Ground::LightBlue)
                | (Self::Yellow, Ground::Beige)
                | (Self::Blue, Ground::DarkBlue)
        )
    }
}

impl Ground {
    /// All colours, in the order used for drawing.
    #[rustfmt::skip]
    pub const ALL: [Self; 7] = [
        Self::White, Self::Black, Self::Gray, Self::LightBlue,
        Self::Beige, Self::LightGreen, Self::DarkBlue,
    ];

    /// `light blue`
    pub fn name(self) -> &'static str {
        GROUNDS[self as usize].0
    }

    /// `浅蓝色`
    pub fn chinese(self) -> &'static str {
        GROUNDS[self as usize].1
    }

    pub(super) fn shades(self) -> &'static [Rgb] {
        GROUNDS[self as usize].2
    }
}
