//! Plain Rust: the reference implementation. Loops over the lanes have a fixed length, so that
//! compilers vectorize them.

use std::marker::PhantomData;

use super::{Element, LANES, ROWS, Start, Tile, check};

/// Any CPU.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Scalar<E>(PhantomData<E>);

impl<E: Element> Tile for Scalar<E> {
    type Element = E;

    fn convert(self, from: &[f32], scale: f32, to: &mut [E]) {
        assert_eq!(
            from.len(),
            to.len(),
            "both slices must have the same length"
        );
        for (to, &from) in to.iter_mut().zip(from) {
            *to = E::from_f32(scale * from);
        }
    }

    fn multiply(self, a: &[E], b: &[E], width: usize, start: Start, c: &mut [f32]) {
        let depth = check(a, b, width, start, c);
        for (i, c) in c.chunks_exact_mut(ROWS * width).enumerate() {
            let a = &a[i * ROWS * depth..][..ROWS * depth];
            for (row, c) in c.chunks_exact_mut(width).enumerate() {
                for (i, c) in c.chunks_exact_mut(LANES).enumerate() {
                    let column = i * LANES;
                    init_sums(start, column, c);
                    accumulate(a, row, b, column, width, c);
                }
            }
        }
    }
}

fn init_sums(start: Start, column: usize, c: &mut [f32]) {
    match start {
        Start::Zero => c.fill(0.0),
        Start::Add => {}
        Start::Scaled(by) => c.iter_mut().zip(&by[column..]).for_each(|(c, by)| *c *= by),
    }
}

/// `c[i] += sum over k of a[row][k] * b[k][column + i]`, one row by sixteen columns.
fn accumulate<E: Element>(
    a: &[E],
    row: usize,
    b: &[E],
    column: usize,
    width: usize,
    c: &mut [f32],
) {
    let mut sums = [0.0; LANES];
    sums.copy_from_slice(c);
    let steps = a.chunks_exact(ROWS * E::GROUP);
    for (a, b) in steps.zip(b.chunks_exact(width * E::GROUP)) {
        let a = &a[row * E::GROUP..][..E::GROUP];
        let b = &b[column * E::GROUP..][..LANES * E::GROUP];
        for (lane, sum) in sums.iter_mut().enumerate() {
            for g in 0..E::GROUP {
                *sum += a[g].to_f32() * b[lane * E::GROUP + g].to_f32();
            }
        }
    }
    c.copy_from_slice(&sums);
}
