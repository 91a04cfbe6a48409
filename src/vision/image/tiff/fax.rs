//! CCITT fax codes. The code tables are those of the crate `fax`, which decodes Group 4; its Group 3 needs
//! end-of-line codes and knows no two-dimensional rows, so rows of Group 3 are read here.

use std::convert::Infallible;

use fax::{
    BitReader, ByteReader, Color, decoder,
    maps::{Mode, black, mode, white},
};

/// Which code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// Rows of runs that begin at whole bytes.
    Huffman,
    /// Rows of runs behind end-of-line codes.
    Group3,
    /// Group 3 whose rows may refer to the one before.
    Group3In2d,
    Group4,
}

/// Rows of bits, ones for black, up to the first that cannot be read; at most `height`.
pub fn decode(code: Code, bytes: &[u8], width: u16, height: u16) -> Vec<u8> {
    let mut out = Vec::new();
    let row_len = usize::from(width).div_ceil(8);
    let mut add = |changes: &[u16]| {
        let row = out.len();
        out.resize(row + row_len, 0_u8);
        for (x, color) in decoder::pels(changes, width).enumerate() {
            if color == Color::Black {
                out[row + x / 8] |= 0x80 >> (x % 8);
            }
        }
    };
    if code == Code::Group4 {
        let _ = decoder::decode_g4(bytes.iter().copied(), width, Some(height), add);
        return out;
    }
    // Codes are looked up by more bits than they may have; zeros are none.
    let padded = bytes.iter().copied().chain([0; 4]).map(Ok::<_, Infallible>);
    let Ok(mut bits) = ByteReader::new(padded);
    let mut above = Vec::new();
    for _ in 0..height {
        match next_row(code, &mut bits, &above, width) {
            Some(row) => {
                add(&row);
                above = row;
            }
            None => break,
        }
    }
    out
}

/// The places at which the next row changes its colour, from white on.
fn next_row(code: Code, bits: &mut impl BitReader, above: &[u16], width: u16) -> Option<Vec<u16>> {
    let mut refers = false;
    match code {
        Code::Huffman => {
            let n = bits.bits_to_byte_boundary();
            bits.consume(n).ok()?;
        }
        _ => {
            // An end-of-line code is eleven zeros or more, and a one.
            if bits.peek(9) == Some(0) {
                while bits.peek(1)? == 0 {
                    bits.consume(1).ok()?;
                }
                bits.consume(1).ok()?;
                if code == Code::Group3In2d {
                    refers = bits.peek(1)? == 0;
                    bits.consume(1).ok()?;
                }
            }
        }
    }
    match refers {
        true => row_from_above(bits, above, width),
        false => row_of_runs(bits, width),
    }
}

fn row_of_runs(bits: &mut impl BitReader, width: u16) -> Option<Vec<u16>> {
    let mut changes = Vec::new();
    let (mut at, mut color) = (0_u16, Color::White);
    while at < width {
        at = at.checked_add(run(bits, color)?)?;
        changes.push(at);
        color = !color;
    }
    Some(changes)
}

fn row_from_above(bits: &mut impl BitReader, above: &[u16], width: u16) -> Option<Vec<u16>> {
    let mut changes = Vec::new();
    let (mut at, mut color, mut is_first) = (0_u16, Color::White, true);
    // Changes above that are passed. Neither row goes back, so none of them is looked at again.
    let mut n_passed = 0;
    while at < width {
        let is_passed = |x: &u16| *x <= at && !(is_first && *x == 0);
        while above.get(n_passed).is_some_and(is_passed) {
            n_passed += 1;
        }
        // The next change above to the colour opposite to this, and the one after it.
        let parity = usize::from(color == Color::Black);
        let next = n_passed + usize::from(n_passed % 2 != parity);
        let place = |i: usize| above.get(i).map_or(width, |x| (*x).min(width));
        match mode::decode(bits)? {
            Mode::Pass => at = place(next + 1),
            Mode::Vertical(by) => {
                let before = at;
                at = place(next).checked_add_signed(by.into())?;
                if at < before {
                    return None;
                }
                changes.push(at);
                color = !color;
            }
            Mode::Horizontal => {
                for color in [color, !color] {
                    at = at.checked_add(run(bits, color)?)?;
                    changes.push(at);
                }
            }
            _ => return None,
        }
        is_first = false;
    }
    Some(changes)
}

/// The length of a run: multiples of 64, and a rest.
fn run(bits: &mut impl BitReader, color: Color) -> Option<u16> {
    let mut length = 0_u16;
    loop {
        let part = match color {
            Color::White => white::decode(bits)?,
            Color::Black => black::decode(bits)?,
        };
        length = length.checked_add(part)?;
        if part < 64 {
            return Some(length);
        }
    }
}
