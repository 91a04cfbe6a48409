//! Reads the record file.

use std::{
    fs,
    io::{BufRead, BufReader},
};

use super::{
    Journal, JournalError, entry::Line, locked::OffsetReader, settings_check::SettingsCheck,
};
use crate::{
    system::text,
    tasks::caption::layout::{End, Layout, Tail},
};

impl Journal {
    /// Reads all records.
    pub(super) fn read(&mut self) -> Result<(), JournalError> {
        (self.len, self.n_superseded) = (0, 0);
        self.known.clear();
        self.settings_check = SettingsCheck::default();
        let file = self.file.try_clone().map_err(|e| self.io(e))?;
        let mut input = BufReader::new(OffsetReader(&file, 0));
        let start = input.fill_buf().map(text::check_encoding);
        start
            .map_err(|e| self.io(e))?
            .map_err(|e| self.not_text(e))?;
        let layout = Layout::read(self.format, &mut input).map_err(|e| self.io(e))?;
        match layout.map_err(|source| self.invalid_record(1, source))? {
            Some(layout) => self.layout = layout,
            None => return self.write_header(),
        }
        self.len = self.layout.head().len() as u64;
        if let Some(end) = self.layout.complete_head() {
            self.write(end.as_bytes())?;
        }
        let mut number = 1 + n_lines(self.layout.head());
        let mut line = Vec::new();
        let end = loop {
            match self
                .layout
                .read_line(&mut input, &mut line)
                .map_err(|e| self.io(e))?
            {
                End::Complete => self.take(&line, number)?,
                end => break end,
            }
            if number == 1 {
                self.layout.adopt_end_of_line(&line);
            }
            number += n_lines(&line);
            line.clear();
        };
        self.finish(&line, end, number)?;
        self.state = self.file.metadata().map_err(|e| self.io(e))?.into();
        Ok(())
    }

    /// Writes the header of a file that is empty or has a torn header.
    fn write_header(&mut self) -> Result<(), JournalError> {
        let len = self.file.metadata().map_err(|e| self.io(e))?.len();
        self.layout = Layout::ours(self.format);
        if len > 0 {
            let torn = fs::read(&self.real).map_err(|e| self.io(e))?;
            self.set_torn_aside(&torn)?;
        }
        self.write(self.format.header().as_bytes())
    }

    /// Processes a line.
    fn take(&mut self, line: &[u8], number: usize) -> Result<(), JournalError> {
        if std::str::from_utf8(line).is_err() {
            let offset = usize::try_from(self.len).unwrap_or(usize::MAX);
            return Err(self.not_text(text::not_utf8(line, number, offset)));
        }
        let parsed = self
            .layout
            .parse(line)
            .map_err(|source| self.invalid_record(number, source))?;
        if let Some(fields) = parsed {
            let line_entry = Line::new(&fields, line, self.len);
            let line_entry = line_entry.map_err(|source| self.invalid_record(number, source))?;
            let result = self
                .settings_check
                .add(&fields, self.format, &self.settings);
            result.map_err(|mismatch| self.other_settings(mismatch))?;
            if self
                .known
                .insert(line_entry.path, line_entry.entry)
                .is_some()
            {
                self.n_superseded += 1;
            }
        }
        self.len += line.len() as u64;
        Ok(())
    }

    /// Processes the last line, which has no line feed.
    fn finish(&mut self, line: &[u8], end: End, number: usize) -> Result<(), JournalError> {
        let n_whole = match self.layout.tail(line, end) {
            Tail::Whole => line.len(),
            Tail::Torn(at) => at,
            Tail::Unknown(_) if std::str::from_utf8(line).is_err() => line.len(), // see `take`
            Tail::Unknown(source) => {
                let n_before = match end {
                    End::InQuotes(at) => n_lines(&line[..at]),
                    _ => 0,
                };
                return Err(self.invalid_record(number + n_before, source));
            }
        };
        let (whole, torn) = line.split_at(n_whole);
        self.take(whole, number)?;
        let result = self.settings_check.finish(&self.settings);
        result.map_err(|mismatch| self.other_settings(mismatch))?;
        if !torn.is_empty() {
            self.set_torn_aside(torn)?;
        }
        if !whole.is_empty() {
            self.write(self.layout.end_of_line().as_bytes())?;
        }
        Ok(())
    }
}

fn n_lines(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte == b'\n').count()
}
