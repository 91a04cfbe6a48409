//! Draws the scene of a seed, as `models/train/scenes.py` does. The order of random draws follows the code.

use super::{
    Color, Draw, Ground, Kind, Scene, Size, Thing,
    scene::{MAX_THINGS, UNIT},
};

/// Percentages of scenes with 1 to 6 things.
const COUNT_WEIGHTS: [usize; MAX_THINGS] = [13, 15, 17, 18, 18, 19];
/// Percentage of things that are digits.
const DIGITS: usize = 13;
/// Radii. A lone large thing may be much larger.
const SMALL: (i16, i16) = (246, 348);
const LARGE: (i16, i16) = (540, 660);
const LONE: (i16, i16) = (660, 1000);
const DIGIT_MIN_RADIUS: i16 = 290;
/// Minimum distance between the circles around two things.
const GAP: i64 = 26;
/// Maximum distance of a thing's centre from the centre of its cell.
const WIDE_JITTER: i16 = 400;
const NARROW_JITTER: i16 = 60;
/// Number of handwriting styles of digits.
const FACES: usize = 3;

impl Scene {
    /// The scene of a seed.
    pub fn from_seed(seed: u64) -> Self {
        Self::draw(&mut Draw::new(seed))
    }

    /// The next scene of a stream.
    pub fn draw(draw: &mut Draw) -> Self {
        Self::draw_of(draw, None, DIGITS)
    }

    /// The next scene with `count` things, or a random number; `digits` percent of them are digits.
    pub(super) fn draw_of(draw: &mut Draw, count: Option<usize>, digits: usize) -> Self {
        loop {
            let is_colored = draw.chance(80);
            let ground = if is_colored {
                draw.pick(&Ground::ALL)
            } else {
                Ground::White
            };
            let count = count.unwrap_or_else(|| 1 + draw.weighted(&COUNT_WEIGHTS));
            if let Some(mut things) = things(draw, ground, count, digits) {
                things.sort_by_key(|t| (t.row, t.col));
                return on_ground(draw, ground, things);
            }
        }
    }
}

/// `count` things in different cells; `None` if one does not fit.
fn things(draw: &mut Draw, ground: Ground, count: usize, digits: usize) -> Option<Vec<Thing>> {
    let mut things = Vec::new();
    for cell in draw.sample(0..9u8, count) {
        let mut thing = thing(draw, ground, &things, digits);
        (thing.row, thing.col) = (cell / 3, cell % 3);
        if !place(draw, &mut thing, &things, count == 1) {
            return None;
        }
        style(draw, &mut thing);
        things.push(thing);
    }
    Some(things)
}

/// A thing's kind and colour; in a quarter of cases it repeats the colour or the kind of an earlier thing.
fn thing(draw: &mut Draw, ground: Ground, before: &[Thing], digits: usize) -> Thing {
    let size = draw.pick(&[Size::Small, Size::Large]);
    let color = if !before.is_empty() && draw.chance(28) {
        before[draw.below(before.len())].color
    } else {
        visible_color(draw, ground)
    };
    let kind = if !before.is_empty() && draw.chance(28) {
        before[draw.below(before.len())].kind
    } else if draw.chance(digits) {
        Kind::Number
    } else {
        draw.pick(&Kind::SHAPES)
    };
    let digit = match kind {
        Kind::Number => draw.below(10) as i8,
        _ => -1,
    };
    Thing {
        size,
        color,
        kind,
        digit,
        row: 0,
        col: 0,
        cx: 0,
        cy: 0,
        r: 0,
        turn: 0,
        stretch: 256,
        rgb: [0; 3],
        rim: 256,
        face: 0,
        pen: 0,
    }
}

fn visible_color(draw: &mut Draw, ground: Ground) -> Color {
    loop {
        let color = draw.pick(&Color::ALL);
        if color.shows_on(ground) {
            return color;
        }
    }
}

/// Draws radius and centre inside the thing's cell; returns false after twelve attempts that touched another
/// thing.
fn place(draw: &mut Draw, thing: &mut Thing, others: &[Thing], is_alone: bool) -> bool {
    for attempt in 0..12 {
        thing.r = radius(draw, thing, is_alone);
        let reach = if attempt < 8 {
            WIDE_JITTER
        } else {
            NARROW_JITTER
        };
        let margin = thing.r.min(LARGE.1) + 12;
        let mut along = |cell: u8| {
            let centre = UNIT * (2 * i16::from(cell) + 1) / 6;
            let jittered = centre + draw.between(-reach, reach);
            jittered.max(margin).min(UNIT - margin)
        };
        (thing.cx, thing.cy) = (along(thing.col), along(thing.row));
        if others.iter().all(|other| are_apart(thing, other)) {
            return true;
        }
    }
    false
}

/// A radius that fits the size word; the two ranges are far apart, so the word is never ambiguous.
fn radius(draw: &mut Draw, thing: &Thing, is_alone: bool) -> i16 {
    let (low, high) = match thing.size {
        Size::Small if thing.kind == Kind::Number => (DIGIT_MIN_RADIUS, SMALL.1),
        Size::Small => SMALL,
        Size::Large if is_alone && draw.chance(50) => LONE,
        Size::Large => LARGE,
    };
    draw.between(low, high)
}

fn are_apart(a: &Thing, b: &Thing) -> bool {
    let (dx, dy) = (i64::from(a.cx - b.cx), i64::from(a.cy - b.cy));
    let least = i64::from(a.r) + i64::from(b.r) + GAP;
    dx * dx + dy * dy > least * least
}

/// How the thing is drawn; questions never ask about this.
fn style(draw: &mut Draw, thing: &mut Thing) {
    let is_number = thing.kind == Kind::Number;
    if draw.chance(65) {
        thing.turn = draw.between(-25, 25) as i8;
    }
    // Stretched more, these shapes could be confused.
    let is_firm = matches!(thing.kind, Kind::Square | Kind::Diamond | Kind::Ring) || is_number;
    let slack = if is_firm { 24 } else { 44 };
    if draw.chance(50) {
        thing.stretch = draw.between(256 - slack, 256 + slack);
    }
    let shade = draw.pick(thing.color.shades());
    thing.rgb = jitter(draw, shade, 12);
    let is_filled = !is_number && thing.kind != Kind::Ring;
    let may_have_rim = is_filled && thing.size == Size::Large && thing.color != Color::Black;
    if may_have_rim && draw.chance(25) {
        thing.rim = draw.pick(&[64, 128]);
    }
    if is_number {
        thing.face = draw.below(FACES) as u8;
        thing.pen = draw.between(65, 185);
    }
}

/// A colour near the given one.
fn jitter(draw: &mut Draw, rgb: [u8; 3], amount: i16) -> [u8; 3] {
    rgb.map(|v| (i16::from(v) + draw.between(-amount, amount)).clamp(0, 255) as u8)
}

/// The scene with tint, gradient, noise and softness of its background.
fn on_ground(draw: &mut Draw, ground: Ground, things: Vec<Thing>) -> Scene {
    let tint = draw.pick(ground.shades());
    let near = jitter(draw, tint, 6);
    let is_gradient = draw.chance(30);
    let far = if is_gradient {
        jitter(draw, tint, 12)
    } else {
        near
    };
    let slope = draw.pick(&[[1, 0], [0, 1], [1, 1], [1, -1]]);
    let is_noisy = draw.chance(35);
    let noise = if is_noisy { draw.below(27) as u8 } else { 0 };
    let noise_seed = draw.bits();
    let is_soft = draw.chance(35);
    let soften = if is_soft { draw.below(257) as u16 } else { 0 };
    Scene {
        ground,
        things,
        near,
        far,
        slope,
        noise,
        noise_seed,
        soften,
    }
}
