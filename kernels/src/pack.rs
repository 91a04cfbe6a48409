//! Packs weights on several threads.

/// Calls `pack` for every panel with its rows. Each panel takes `per_panel` rows; the last may have
/// fewer.
///
/// This uses threads of its own. A matrix may be packed under a lock, and a rayon worker that
/// waited here could steal a task that waits for the same lock.
pub(crate) fn pack_panels<T: Send>(
    panels: &mut [T],
    panel_len: usize,
    rows: &[&[u8]],
    per_panel: usize,
    pack: impl Fn(&[&[u8]], &mut [T]) + Sync,
) {
    let share = rows.len().div_ceil(per_panel);
    let share = share.div_ceil(rayon::current_num_threads()).max(1);
    let pack = &pack;
    std::thread::scope(|scope| {
        let shares = panels.chunks_mut(share * panel_len);
        for (panels, rows) in shares.zip(rows.chunks(share * per_panel)) {
            scope.spawn(move || {
                let panels = panels.chunks_mut(panel_len);
                for (panel, rows) in panels.zip(rows.chunks(per_panel)) {
                    pack(rows, panel);
                }
            });
        }
    });
}

/// Splits `parts` into rows of `row_bytes`. The rows of a part follow those of the part before.
///
/// # Panics
/// If a part is not a whole number of rows.
pub(crate) fn rows_of<'a>(parts: &[&'a [u8]], row_bytes: usize) -> Vec<&'a [u8]> {
    let rows = parts.iter().flat_map(|part| {
        let rows = part.chunks_exact(row_bytes);
        assert!(
            rows.remainder().is_empty(),
            "a part must be a whole number of rows"
        );
        rows
    });
    rows.collect()
}
