//! Plain Rust: the reference. Loops of fixed length over the lanes, which compilers make vectors of.

use std::marker::PhantomData;

use super::{Element, LANES, ROWS, Start, Tile, check};

/// Any CPU.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Scalar<E>(PhantomData<E>);

impl<E: Element> Tile for Scalar<E> {
    type Element = E;

    fn narrow(self, from: &[f32], scale: f32, to: &mut [E]) {
        assert_eq!(from.len(), to.len(), "as many");
        for (to, &from) in to.iter_mut().zip(from) {
            *to = E::from_f32(scale * from);
        }
    }

    fn multiply(self, a: &[E], b: &[E], width: usize, start: Start, c: &mut [f32]) {
        let depth = check(a, b, width, start, c);
        for (i, c) in c.chunks_exact_mut(ROWS * width).enumerate() {
            let a = &a[i * ROWS * depth..][..ROWS * depth];
            for (row, c) in c.chunks_exact_mut(width).enumerate() {
                for column in (0..width).step_by(LANES) {
                    let c = &mut c[column..column + LANES];
                    begin(start, column, c);
                    accumulate(
                        &a[row * E::GROUP..],
                        &b[column * E::GROUP..],
                        width,
                        depth,
                        c,
                    );
                }
            }
        }
    }
}

fn begin(start: Start, column: usize, c: &mut [f32]) {
    match start {
        Start::Zero => c.fill(0.0),
        Start::Add => {}
        Start::Scaled(by) => c.iter_mut().zip(&by[column..]).for_each(|(c, by)| *c *= by),
    }
}

/// `c[i] += sum over k of a[k] * b[k][i]` for one row and sixteen columns.
fn accumulate<E: Element>(a: &[E], b: &[E], width: usize, depth: usize, c: &mut [f32]) {
    let mut sums = [0.0; LANES];
    sums.copy_from_slice(c);
    for step in 0..depth / E::GROUP {
        let a = &a[step * ROWS * E::GROUP..][..E::GROUP];
        let b = &b[step * width * E::GROUP..][..LANES * E::GROUP];
        for (lane, sum) in sums.iter_mut().enumerate() {
            for g in 0..E::GROUP {
                *sum += a[g].to_f32() * b[lane * E::GROUP + g].to_f32();
            }
        }
    }
    c.copy_from_slice(&sums);
}
