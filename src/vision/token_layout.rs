//! The order of the embeddings of a picture in tiles.
//!
//! ```text
//! whole picture   m rows of m embeddings, each with a row separator behind it
//! view separator
//! tiles           m * rows rows of m * cols embeddings, across tiles, each with a row separator behind it
//! ```
//!
//! `m` is the number of embeddings along the edge of a tile: half its patches.

use crate::model::TileGrid;

/// The order of the embeddings of a picture of `grid` tiles.
#[derive(Clone, Copy, Debug)]
pub struct TokenLayout {
    pub grid: TileGrid,
    /// Embeddings along the edge of a tile.
    pub m: usize,
}

impl TokenLayout {
    /// The position of embedding `row` (in reading order) of tower input `input`: 0 is the whole picture, then the
    /// tiles in reading order.
    pub fn position(self, input: usize, row: usize) -> usize {
        let (y, x) = (row / self.m, row % self.m);
        match input.checked_sub(1) {
            None => y * (self.m + 1) + x,
            Some(tile) => {
                let (tile_y, tile_x) = (tile / self.grid.cols, tile % self.grid.cols);
                self.tiles() + (tile_y * self.m + y) * self.row() + tile_x * self.m + x
            }
        }
    }

    /// The position of the separator behind the whole picture.
    pub fn view_separator(self) -> usize {
        self.m * (self.m + 1)
    }

    /// The positions of the separators behind rows.
    pub fn row_separators(self) -> impl Iterator<Item = usize> {
        let whole = (0..self.m).map(move |y| y * (self.m + 1) + self.m);
        let rows = 0..self.grid.rows * self.m;
        whole.chain(rows.map(move |y| self.tiles() + (y + 1) * self.row() - 1))
    }

    /// The position of the first embedding of the tiles.
    fn tiles(self) -> usize {
        self.view_separator() + 1
    }

    /// Length of a row across tiles.
    fn row(self) -> usize {
        self.grid.cols * self.m + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_position_is_taken_once() {
        let layout = TokenLayout {
            grid: TileGrid { rows: 2, cols: 3 },
            m: 4,
        };
        let embeddings = (0..7).flat_map(|input| (0..16).map(move |row| (input, row)));
        let mut taken: Vec<_> = embeddings
            .map(|(input, row)| layout.position(input, row))
            .chain(layout.row_separators())
            .chain([layout.view_separator()])
            .collect();
        taken.sort_unstable();
        assert_eq!(taken, (0..7 * 16 + 1 + 3 * 4).collect::<Vec<_>>());
        assert_eq!(layout.position(2, 0), layout.position(1, 3) + 1);
    }
}
