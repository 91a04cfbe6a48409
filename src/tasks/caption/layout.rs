//! The layout of a record file: as this program writes it, or as another program left it.
//!
//! Editors add a byte order mark or `\r\n`, pandas and jq format JSON differently, spreadsheets change quotes,
//! separators and the order of columns. All these layouts are read, and new records are written in the layout of
//! the file.

use std::{
    io::{self, BufRead},
    path::Path,
};

use csv::{ByteRecord, ReaderBuilder, Terminator, WriterBuilder};
use serde_json::Value;

use super::{
    COLUMNS, Fields, Format, Record,
    fields::is_compact,
    format::{COPY, InvalidRecord, JSON_ONLY, fields},
    selection::Kind,
};
use crate::system::text::{self, BYTE_ORDER_MARK};

/// Columns that the next run needs to know what is done.
const ESSENTIAL: [&str; 7] = [
    "error", "size", "modified", "model", "prompt", "template", "time",
];

/// More bytes than any record has.
const MAX_TORN_BYTES: usize = 1 << 20;

/// The layout of one file.
#[derive(Clone, Debug)]
pub struct Layout {
    /// The bytes before the first record.
    head: Vec<u8>,
    /// Whether lines end with `\r\n`.
    is_crlf: bool,
    /// `None` for JSON Lines.
    table: Option<Table>,
}

/// The delimiter and columns of a CSV file.
#[derive(Clone, Debug)]
struct Table {
    delimiter: u8,
    /// The names of the columns; those of this program in lower case.
    columns: Vec<String>,
}

/// The last line of a file that does not end with a line feed.
#[derive(Debug)]
pub enum Tail {
    /// A complete record without its line end.
    Whole,
    /// From this byte on, an unfinished write of this program.
    Torn(usize),
    /// Anything else.
    Unknown(InvalidRecord),
}

/// How a line of the file ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With a line feed.
    Complete,
    /// At the end of the file.
    Missing,
    /// At the end of the file, within quotes that opened at this byte of the line.
    InQuotes(usize),
}

impl Layout {
    /// The layout of files that this program creates.
    pub fn ours(format: Format) -> Self {
        let table = Table {
            delimiter: b',',
            columns: COLUMNS.map(str::to_owned).to_vec(),
        };
        Self {
            head: format.header().into_bytes(),
            is_crlf: false,
            table: (format == Format::Csv).then_some(table),
        }
    }

    /// Reads the bytes before the first record. `None` if they are an unfinished header.
    ///
    /// # Errors
    /// If the header is not that of a record file.
    pub fn read(
        format: Format,
        input: &mut impl BufRead,
    ) -> io::Result<Result<Option<Self>, InvalidRecord>> {
        let mut head = Vec::new();
        if input.fill_buf()?.starts_with(BYTE_ORDER_MARK) {
            input.consume(BYTE_ORDER_MARK.len());
            head.extend(BYTE_ORDER_MARK);
        }
        if format == Format::Jsonl {
            let is_crlf = false; // until the first line shows otherwise
            return Ok(Ok(Some(Self {
                head,
                is_crlf,
                table: None,
            })));
        }
        let mut line = Vec::new();
        input.read_until(b'\n', &mut line)?;
        let separator = match text::content(&line) {
            [b's' | b'S', b'e' | b'E', b'p' | b'P', b'=', separator] => Some(*separator),
            _ => None,
        };
        if separator.is_some() {
            head.append(&mut line);
            input.read_until(b'\n', &mut line)?;
        }
        if !line.ends_with(b"\n") && format.header().as_bytes().starts_with(&line) {
            return Ok(Ok(None));
        }
        // With `\r` alone, as some spreadsheets on a Mac write, the whole file would be one line.
        if text::content(&line).contains(&b'\r') {
            let what = "lines that end with a line feed instead of a carriage return \
                        (`tr '\\r' '\\n' < IN > OUT` converts them)";
            return Ok(Err(InvalidRecord::expected(what.to_owned(), &line)));
        }
        head.extend(&line);
        let is_crlf = line.ends_with(b"\r\n");
        Ok(
            Table::of_header(text::content(&line), separator).map(|table| {
                let table = Some(table);
                Some(Self {
                    head,
                    is_crlf,
                    table,
                })
            }),
        )
    }

    /// The bytes before the first record.
    pub fn head(&self) -> &[u8] {
        &self.head
    }

    /// Adds a missing line end to the header, and returns it.
    pub fn complete_head(&mut self) -> Option<&'static str> {
        let lacks_end = self.table.is_some() && !self.head.ends_with(b"\n");
        lacks_end.then(|| {
            self.head.push(b'\n');
            "\n"
        })
    }

    /// The line end of the file.
    pub fn end_of_line(&self) -> &'static str {
        if self.is_crlf { "\r\n" } else { "\n" }
    }

    /// Adopts the line end of `line`.
    pub fn adopt_end_of_line(&mut self, line: &[u8]) {
        self.is_crlf = line.ends_with(b"\r\n");
    }

    /// Appends the next line to `line`; in CSV the next row, which may contain quoted line breaks.
    ///
    /// # Errors
    /// If the input cannot be read.
    pub fn read_line(&self, input: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<End> {
        let delimiter = self.table.as_ref().map(|table| table.delimiter);
        let mut quotes = Quotes::default();
        loop {
            let begin = line.len();
            input.read_until(b'\n', line)?;
            if let Some(delimiter) = delimiter {
                quotes.pass(&line[begin..], begin, delimiter);
            }
            if !line[begin..].ends_with(b"\n") {
                return Ok(quotes.open.map_or(End::Missing, End::InQuotes));
            }
            if quotes.open.is_none() {
                return Ok(End::Complete);
            }
        }
    }

    /// The fields of a line; `None` for an empty line and for a repeated header, as in files joined by `cat`.
    ///
    /// # Errors
    /// If the line is not a record.
    pub fn parse(&self, line: &[u8]) -> Result<Option<Fields>, InvalidRecord> {
        let line = line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line);
        let content = text::content(line);
        if content.trim_ascii().is_empty() {
            return Ok(None);
        }
        match &self.table {
            None => parse_json(content).map(Some),
            Some(table) => table.parse(content),
        }
    }

    /// The line of a record with the `added` fields of a user.
    pub fn line(&self, record: &Record, added: Fields) -> String {
        let mut fields = fields(record);
        fields.append(added);
        self.line_of(&fields)
    }

    /// The line with these fields.
    pub fn line_of(&self, fields: &Fields) -> String {
        let line = match &self.table {
            None => serde_json::to_string(fields).expect("its keys are strings"),
            Some(table) => table.row(fields),
        };
        line + self.end_of_line()
    }

    /// The fields that a user added.
    pub fn added(mut fields: Fields) -> Fields {
        fields.retain(|name| !COLUMNS.contains(&name) && !JSON_ONLY.contains(&name));
        fields
    }

    /// Classifies the last line, which has no line feed.
    pub fn tail(&self, line: &[u8], end: End) -> Tail {
        // A power failure may leave zeros in place of the written data.
        let n = line
            .iter()
            .rposition(|byte| *byte != 0)
            .map_or(0, |at| at + 1);
        let (body, is_padded) = (&line[..n], n < line.len());
        let refused = match self.parse(body) {
            _ if body.is_empty() => return Tail::Torn(0),
            Err(error) => error,
            Ok(_) if matches!(end, End::InQuotes(_)) => InvalidRecord::unclosed(body),
            Ok(_) if self.is_cut(body, end) => InvalidRecord::unfinished(body),
            Ok(_) if is_padded => return Tail::Torn(n),
            Ok(_) => return Tail::Whole,
        };
        let is_torn = match &self.table {
            None => is_torn_json(body),
            Some(table) => table.is_torn(body, end),
        };
        if is_torn {
            Tail::Torn(0)
        } else {
            Tail::Unknown(refused)
        }
    }

    /// Whether a row that can be parsed is incomplete nevertheless.
    fn is_cut(&self, body: &[u8], end: End) -> bool {
        let Some(table) = &self.table else {
            return false;
        };
        let cells = table.cells(body);
        let is_short = cells.len() < table.columns.len() && table.is_torn(body, end);
        let ends_in_stop = table.columns.last().is_some_and(|name| name == "stop");
        let stop = cells.iter().next_back().unwrap_or_default();
        let is_part = |whole: &&str| whole.len() > stop.len() && whole.as_bytes().starts_with(stop);
        let cut_stop = ends_in_stop
            && cells.len() == table.columns.len()
            && !stop.is_empty()
            && ["stop", "length", "context", "interrupted"]
                .iter()
                .any(is_part);
        is_short || cut_stop
    }

    /// This layout with the missing columns for [`ESSENTIAL`] fields, and for [`COPY`] if a record `has_copy`;
    /// `None` if no column is missing.
    pub fn with_missing_columns(&self, has_copy: bool) -> Option<Self> {
        let table = self.table.as_ref()?;
        let is_missing = |name: &&str| !table.columns.iter().any(|column| column == name);
        let needed = ESSENTIAL.into_iter().chain(has_copy.then_some(COPY));
        let missing: Vec<&str> = needed.filter(is_missing).collect();
        if missing.is_empty() {
            return None;
        }
        let mut layout = self.clone();
        let table = layout.table.as_mut()?;
        table
            .columns
            .extend(missing.iter().map(|name| (*name).to_owned()));
        let separator = char::from(table.delimiter).to_string();
        let more = separator.clone() + &missing.join(&separator) + self.end_of_line();
        layout.head.truncate(text::content(&self.head).len());
        layout.head.extend(more.as_bytes());
        Some(layout)
    }

    /// Pads a line of a file with fewer columns.
    pub fn padded(&self, line: &[u8]) -> Vec<u8> {
        let Some(table) = &self.table else {
            return line.to_vec();
        };
        let content = text::content(line);
        let n_missing = table
            .columns
            .len()
            .saturating_sub(table.cells(content).len());
        let more = vec![table.delimiter; n_missing];
        [content, &more, self.end_of_line().as_bytes()].concat()
    }
}

impl Table {
    fn of_header(header: &[u8], separator: Option<u8>) -> Result<Self, InvalidRecord> {
        let candidates = separator.map_or(vec![b',', b';', b'\t', b'|'], |one| vec![one]);
        for delimiter in candidates {
            let columns = Vec::new();
            let mut table = Self { delimiter, columns };
            for cell in table.cells(header).iter() {
                let name = String::from_utf8_lossy(cell).into_owned();
                let plain = name.trim().to_ascii_lowercase();
                let is_ours = COLUMNS.contains(&plain.as_str()) || plain == COPY;
                let mut name = if is_ours { plain } else { name };
                // A user's columns may share a name or have none; each keeps its own cells.
                while !is_ours && table.columns.contains(&name) {
                    name.push('\'');
                }
                table.columns.push(name);
            }
            let count = |name: &str| table.columns.iter().filter(|c| *c == name).count();
            if count("path") == 0 || count("caption") == 0 {
                continue;
            }
            if let Some(name) = COLUMNS.into_iter().find(|name| count(name) > 1) {
                let what = format!("one column `{name}` instead of {}", count(name));
                return Err(InvalidRecord::expected(what, header));
            }
            return Ok(table);
        }
        let what = "a header with the columns `path` and `caption`".to_owned();
        Err(InvalidRecord::expected(what, header))
    }

    /// The unquoted cells of a row without its line end.
    fn cells(&self, row: &[u8]) -> ByteRecord {
        let mut reader = ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .delimiter(self.delimiter)
            .terminator(Terminator::Any(b'\n')) // a lone `\r` belongs to its cell
            .from_reader(row);
        let mut cells = ByteRecord::new();
        // Cannot fail: input in memory, flexible number of cells.
        let _ = reader.read_byte_record(&mut cells);
        cells
    }

    fn parse(&self, row: &[u8]) -> Result<Option<Fields>, InvalidRecord> {
        let cells = self.cells(row);
        // Spreadsheets write empty rows below a table.
        if cells.iter().all(|cell| cell.trim_ascii().is_empty()) {
            return Ok(None);
        }
        let n = self.columns.len();
        if cells.iter().skip(n).any(|cell| !cell.is_empty()) {
            let what = format!("{n} fields as in the header instead of {}", cells.len());
            return Err(InvalidRecord::expected(what, row));
        }
        // The first line is the beginning of the row itself.
        if row
            .split(|byte| *byte == b'\n')
            .skip(1)
            .any(|line| self.is_like_row(line))
        {
            let what = "quotes that are closed before the next row".to_owned();
            return Err(InvalidRecord::expected(what, row));
        }
        let mut fields = Fields::default();
        for (name, cell) in self.columns.iter().zip(cells.iter()) {
            let cell =
                std::str::from_utf8(cell).map_err(|e| InvalidRecord::because(row, e.into()))?;
            fields.set(name, cell);
        }
        let is_header = COLUMNS.iter().all(|name| {
            fields
                .string(name)
                .is_none_or(|cell| cell.trim().eq_ignore_ascii_case(name))
        });
        Ok((!is_header).then_some(fields))
    }

    /// Whether a line within quotes looks like a row of its own, which means that a closing quote is missing.
    fn is_like_row(&self, line: &[u8]) -> bool {
        const MANY: usize = 8; // a sentence rarely has so many commas
        let n_delimiters = line.iter().filter(|byte| **byte == self.delimiter).count();
        if n_delimiters + 1 < self.columns.len() {
            return false;
        }
        let cells = self.cells(text::content(line));
        if cells.len() != self.columns.len() || self.closes_quotes(line) {
            return false;
        }
        let place = |column: &str| self.columns.iter().position(|name| name == column);
        let cell = |column: &str| place(column).and_then(|at| cells.get(at));
        let size = cell("size").unwrap_or_default();
        let is_size = |byte: &u8| byte.is_ascii_digit() || b".,eE+".contains(byte);
        let is_number = size.first().is_some_and(u8::is_ascii_digit) && size.iter().all(is_size);
        let path = std::str::from_utf8(cell("path").unwrap_or_default());
        let is_picture = path.is_ok_and(|path| Kind::of(Path::new(path)) != Kind::Other);
        // A caption may have as many commas as columns: the number of cells alone decides only without a size column.
        is_number || is_picture || place("size").is_none() && cells.len() >= MANY
    }

    /// Whether a line that begins within quotes closes them properly: by a quote before a delimiter or the line
    /// end.
    fn closes_quotes(&self, line: &[u8]) -> bool {
        let line = text::content(line);
        let mut at = 0;
        while let Some(before) = line[at..].iter().position(|byte| *byte == b'"') {
            at += before + 1;
            match line.get(at) {
                Some(b'"') => at += 1, // an escaped quote
                next => return next.is_none_or(|byte| *byte == self.delimiter),
            }
        }
        false
    }

    /// The row with these fields, without a line end.
    fn row(&self, fields: &Fields) -> String {
        let cell = |name: &String| fields.text(name).unwrap_or_default();
        let cells: Vec<String> = self.columns.iter().map(cell).collect();
        match self.columns.split_last() {
            // A torn write of `stop` is recognized by its few possible words; other text needs quotes for that.
            Some((name, _)) if name != "stop" => {
                let (last, before) = cells.split_last().expect("as many as columns");
                let last = format!("\"{}\"", last.replace('"', "\"\""));
                self.beginning(before) + &last
            }
            _ => self.format_row(&cells),
        }
    }

    /// The cells, each followed by the delimiter.
    fn beginning<C: AsRef<[u8]>>(&self, cells: &[C]) -> String {
        let mut all: Vec<&[u8]> = cells.iter().map(AsRef::as_ref).collect();
        all.push(b"x");
        let mut row = self.format_row(&all);
        row.pop();
        row
    }

    fn format_row<C: AsRef<[u8]>>(&self, cells: &[C]) -> String {
        let mut writer = WriterBuilder::new()
            .delimiter(self.delimiter)
            .from_writer(Vec::new());
        writer.write_record(cells).expect("memory can be written");
        let bytes = writer.into_inner().expect("memory can be written");
        let row = String::from_utf8_lossy(&bytes);
        row.strip_suffix('\n').unwrap_or(&row).to_owned()
    }

    /// Whether a row without a line end is the beginning of one that this program wrote: its quotes are where
    /// this program sets them, and only the last cell is incomplete.
    fn is_torn(&self, row: &[u8], end: End) -> bool {
        let cells = self.cells(row);
        let n_before = cells.len().saturating_sub(1);
        let before: Vec<&[u8]> = cells.iter().take(n_before).collect();
        let Some(last) = row.strip_prefix(self.beginning(&before).as_bytes()) else {
            return false;
        };
        let is_open = matches!(end, End::InQuotes(at) if at + last.len() == row.len());
        let needs_quotes = |byte: &u8| [b'"', b'\n', b'\r', self.delimiter].contains(byte);
        let is_plain = !last.iter().any(needs_quotes);
        let is_closed = last.len() > 1 && last.starts_with(b"\"") && last.ends_with(b"\"");
        let has_rows = || {
            last.split(|byte| *byte == b'\n')
                .skip(1)
                .any(|line| self.is_like_row(line))
        };
        let is_short = row.len() <= MAX_TORN_BYTES && cells.len() <= self.columns.len();
        let is_beginning = is_open || is_plain || is_closed;
        is_short && is_beginning && !has_rows() && !(is_open && self.has_row_end(last, n_before))
    }

    /// Whether the rest of the row is within the quotes that open `last`, the cell after `n_before` others. Then a
    /// user left out the closing quote.
    fn has_row_end(&self, last: &[u8], n_before: usize) -> bool {
        let text = last.strip_prefix(b"\"").unwrap_or(last);
        text.split(|byte| *byte == b'\n').any(|line| {
            let cells = self.cells(text::content(line));
            let is_number = |name: &str| {
                let at = self.columns.iter().position(|column| column == name);
                let cell = at.and_then(|at| cells.get(at.checked_sub(n_before)?));
                cell.is_some_and(|cell| !cell.is_empty() && cell.iter().all(u8::is_ascii_digit))
            };
            n_before + cells.len() == self.columns.len()
                && (is_number("size") || is_number("tokens"))
        })
    }
}

/// Tracks open quotes. According to RFC 4180 quotes open only at the beginning of a field; elsewhere they are
/// ordinary characters.
#[derive(Default)]
struct Quotes {
    /// The position of the open quote.
    open: Option<usize>,
    state: QuoteState,
}

#[derive(Clone, Copy, Default, PartialEq)]
enum QuoteState {
    #[default]
    FieldStart,
    Plain,
    Quoted,
    /// After a quote within quotes: either their end, or the first half of an escaped quote.
    AfterQuote,
}

impl Quotes {
    /// Processes a line that starts `begin` bytes after the beginning of its row.
    fn pass(&mut self, line: &[u8], begin: usize, delimiter: u8) {
        for (at, byte) in (begin..).zip(line) {
            self.state = match (self.state, *byte) {
                (QuoteState::FieldStart, b'"') => {
                    self.open = Some(at);
                    QuoteState::Quoted
                }
                (QuoteState::Quoted, b'"') => QuoteState::AfterQuote,
                (QuoteState::AfterQuote, b'"') | (QuoteState::Quoted, _) => QuoteState::Quoted,
                (_, byte) => {
                    self.open = None;
                    let is_end = byte == delimiter || byte == b'\n';
                    if is_end {
                        QuoteState::FieldStart
                    } else {
                        QuoteState::Plain
                    }
                }
            };
        }
        if self.state == QuoteState::AfterQuote {
            self.open = None; // an escaping second quote would be on the same line
        }
    }
}

fn parse_json(line: &[u8]) -> Result<Fields, InvalidRecord> {
    serde_json::from_slice(line).map_err(|error| {
        let text = line.trim_ascii_start();
        if text.starts_with(b"[") {
            let what = "a JSON object a line (`jq -c '.[]'` makes lines of an array)";
            InvalidRecord::expected(what.to_owned(), line)
        } else if text.starts_with(b"{") && error.is_eof() {
            let what = "a whole JSON object on the line (`jq -c .` writes each on a line)";
            InvalidRecord::expected(what.to_owned(), line)
        } else {
            InvalidRecord::because(line, error.into())
        }
    })
}

/// Whether a line without a line end is the beginning of a JSON record that this program wrote, without spaces
/// between tokens.
fn is_torn_json(line: &[u8]) -> bool {
    const BEGINNING: &[u8] = b"{\"path\":\"";
    let n = line.len().min(BEGINNING.len());
    let is_ours = line[..n] == BEGINNING[..n];
    let error = serde_json::from_slice::<Value>(line).err();
    let is_short = line.len() <= MAX_TORN_BYTES;
    is_ours && is_short && is_compact(line) && error.is_some_and(|error| error.is_eof())
}
