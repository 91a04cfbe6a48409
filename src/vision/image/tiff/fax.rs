//! CCITT fax codes. The crate `fax` provides the code tables and decodes Group 4. Its Group 3 decoder requires
//! end-of-line codes and does not support two-dimensional rows, so Group 3 is decoded here.

use std::convert::Infallible;

use fax::{
    BitReader, ByteReader, Color, decoder,
    maps::{Mode, black, mode, white},
};

/// The variants of fax codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// Rows of run lengths that start at whole bytes.
    Huffman,
    /// Rows of run lengths with end-of-line codes.
    Group3,
    /// Group 3 whose rows may refer to the previous one.
    Group3In2d,
    Group4,
}

/// Decodes rows of bits (1 is black) up to the first invalid one; at most `height`.
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
    // The lookup reads more bits than a code has; padding zeros match no code.
    let padded = bytes.iter().copied().chain([0; 4]).map(Ok::<_, Infallible>);
    let Ok(mut bits) = ByteReader::new(padded);
    let mut reference = Vec::new();
    for _ in 0..height {
        match next_row(code, &mut bits, &reference, width) {
            Some(row) => {
                add(&row);
                reference = row;
            }
            None => break,
        }
    }
    out
}

/// The positions of the colour changes in the next row, starting with white.
fn next_row(
    code: Code,
    bits: &mut impl BitReader,
    reference: &[u16],
    width: u16,
) -> Option<Vec<u16>> {
    let mut refers = false;
    match code {
        Code::Huffman => {
            let n = bits.bits_to_byte_boundary();
            bits.consume(n).ok()?;
        }
        _ => {
            // An end-of-line code is at least eleven zeros and a one.
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
        true => two_dimensional_row(bits, reference, width),
        false => one_dimensional_row(bits, width),
    }
}

fn one_dimensional_row(bits: &mut impl BitReader, width: u16) -> Option<Vec<u16>> {
    let mut changes = Vec::new();
    let (mut at, mut color) = (0_u16, Color::White);
    while at < width {
        at = at.checked_add(run(bits, color)?)?;
        changes.push(at);
        color = !color;
    }
    Some(changes)
}

fn two_dimensional_row(
    bits: &mut impl BitReader,
    reference: &[u16],
    width: u16,
) -> Option<Vec<u16>> {
    let mut changes = Vec::new();
    let (mut at, mut color, mut is_first) = (0_u16, Color::White, true);
    // Number of reference changes already passed. Positions only increase, so they are not needed again.
    let mut n_passed = 0;
    while at < width {
        let is_passed = |x: &u16| *x <= at && !(is_first && *x == 0);
        while reference.get(n_passed).is_some_and(is_passed) {
            n_passed += 1;
        }
        // The next reference change to the opposite colour, and the one after it.
        let parity = usize::from(color == Color::Black);
        let next = n_passed + usize::from(n_passed % 2 != parity);
        let change_at = |i: usize| reference.get(i).map_or(width, |x| (*x).min(width));
        match mode::decode(bits)? {
            Mode::Pass => at = change_at(next + 1),
            Mode::Vertical(by) => {
                let before = at;
                at = change_at(next).checked_add_signed(by.into())?;
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

/// A run length: multiples of 64 and a remainder.
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
