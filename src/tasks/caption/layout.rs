//! How a file of records is laid out: as this program writes it, or as a person's program left it.
//!
//! Editors add a byte order mark or `\r\n`, pandas and jq write the same JSON otherwise, a spreadsheet
//! changes quotes, separators and the order of columns. All that is read, and further records are
//! written in the file's own way.

use std::{
    io::{self, BufRead},
    path::Path,
};

use csv::{ByteRecord, ReaderBuilder, Terminator, WriterBuilder};
use serde_json::Value;

use super::{
    COLUMNS, Fields, Format, Record,
    fields::is_compact,
    format::{COPY, JSON_ONLY, NoRecord, fields},
    selection::Kind,
};
use crate::system::text::{self, BYTE_ORDER_MARK};

/// Columns without which the next run would not know what is done.
const ESSENTIAL: [&str; 7] = [
    "error", "size", "modified", "model", "prompt", "template", "time",
];

/// More than any record has.
const MAX_TORN_BYTES: usize = 1 << 20;

/// The layout of one file.
#[derive(Clone, Debug)]
pub struct Layout {
    /// What stands before the first record, byte for byte.
    head: Vec<u8>,
    /// Whether lines end with `\r\n`.
    is_crlf: bool,
    /// `None` for JSON Lines.
    table: Option<Table>,
}

/// What a CSV file has beside its rows.
#[derive(Clone, Debug)]
struct Table {
    delimiter: u8,
    /// The names of the columns: in small letters where they are ours.
    columns: Vec<String>,
}

/// What the end of a file without a line feed is.
#[derive(Debug)]
pub enum Tail {
    /// A record, but for its end of line.
    Whole,
    /// A write of this program that was cut short, from this byte on.
    Torn(usize),
    /// Something else.
    Unknown(NoRecord),
}

/// How a line of the file ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With a line feed.
    Complete,
    /// With the file.
    Missing,
    /// With the file, and within the quotes that began at this byte of the line.
    InQuotes(usize),
}

impl Layout {
    /// The layout of files that this program begins.
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

    /// Reads what stands before the first record. `None` if it is a header that was cut short.
    ///
    /// # Errors
    /// If the file has a header, and it is of something else.
    pub fn read(
        format: Format,
        input: &mut impl BufRead,
    ) -> io::Result<Result<Option<Self>, NoRecord>> {
        let mut head = Vec::new();
        if input.fill_buf()?.starts_with(BYTE_ORDER_MARK) {
            input.consume(BYTE_ORDER_MARK.len());
            head.extend(BYTE_ORDER_MARK);
        }
        if format == Format::Jsonl {
            let is_crlf = false; // until a line says otherwise
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
        // With `\r` alone, as some spreadsheets on a Mac write it, the whole file would be a header.
        if text::content(&line).contains(&b'\r') {
            let what = "lines that end with a line feed instead of a carriage return \
                        (`tr '\\r' '\\n' < IN > OUT` converts them)";
            return Ok(Err(NoRecord::expected(what.to_owned(), &line)));
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

    /// What stands before the first record.
    pub fn head(&self) -> &[u8] {
        &self.head
    }

    /// Ends a header with which the file ended, and returns what that took.
    pub fn end_head(&mut self) -> Option<&'static str> {
        let lacks_end = self.table.is_some() && !self.head.ends_with(b"\n");
        lacks_end.then(|| {
            self.head.push(b'\n');
            "\n"
        })
    }

    /// What ends a line.
    pub fn end_of_line(&self) -> &'static str {
        if self.is_crlf { "\r\n" } else { "\n" }
    }

    /// Takes over how the file's lines end.
    pub fn note_end_of_line(&mut self, line: &[u8]) {
        self.is_crlf = line.ends_with(b"\r\n");
    }

    /// Reads a line, or in CSV a row with the line breaks in its quotes, to the end of `line`.
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

    /// The fields of a line; `None` for a line without any, and for a header again, as `cat` leaves it
    /// between the files that it joins.
    ///
    /// # Errors
    /// If it is no record.
    pub fn parse(&self, line: &[u8]) -> Result<Option<Fields>, NoRecord> {
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

    /// The line of a record, with `added` fields of a person.
    pub fn line(&self, record: &Record, added: Fields) -> String {
        let mut fields = fields(record);
        fields.append(added);
        self.line_of(&fields)
    }

    /// The line of some fields.
    pub fn line_of(&self, fields: &Fields) -> String {
        let line = match &self.table {
            None => serde_json::to_string(fields).expect("its keys are strings"),
            Some(table) => table.row(fields),
        };
        line + self.end_of_line()
    }

    /// Those of the fields that a person added.
    pub fn added(mut fields: Fields) -> Fields {
        fields.retain(|name| !COLUMNS.contains(&name) && !JSON_ONLY.contains(&name));
        fields
    }

    /// What the last line is, which has no line feed.
    pub fn tail(&self, line: &[u8], end: End) -> Tail {
        // A power cut may leave zeros where a write was to be.
        let n = line
            .iter()
            .rposition(|byte| *byte != 0)
            .map_or(0, |at| at + 1);
        let (body, is_padded) = (&line[..n], n < line.len());
        let refused = match self.parse(body) {
            _ if body.is_empty() => return Tail::Torn(0),
            Err(error) => error,
            Ok(_) if matches!(end, End::InQuotes(_)) => NoRecord::unclosed(body),
            Ok(_) if self.is_cut(body, end) => NoRecord::unfinished(body),
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

    /// Whether a row that can be read has no end all the same.
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

    /// The same with the columns that it lacks for [`ESSENTIAL`] fields, and for [`COPY`] if a record
    /// `has_copy`; `None` if it lacks none.
    pub fn completed(&self, has_copy: bool) -> Option<Self> {
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

    /// A line of a file with fewer columns, filled up to have them all.
    pub fn filled(&self, line: &[u8]) -> Vec<u8> {
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
    fn of_header(header: &[u8], separator: Option<u8>) -> Result<Self, NoRecord> {
        let candidates = separator.map_or(vec![b',', b';', b'\t', b'|'], |one| vec![one]);
        for delimiter in candidates {
            let columns = Vec::new();
            let mut table = Self { delimiter, columns };
            for cell in table.cells(header).iter() {
                let name = String::from_utf8_lossy(cell).into_owned();
                let plain = name.trim().to_ascii_lowercase();
                let is_ours = COLUMNS.contains(&plain.as_str()) || plain == COPY;
                let mut name = if is_ours { plain } else { name };
                // Columns of a person may have one name, or none; each keeps its own cells.
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
                return Err(NoRecord::expected(what, header));
            }
            return Ok(table);
        }
        let what = "a header with the columns `path` and `caption`".to_owned();
        Err(NoRecord::expected(what, header))
    }

    /// The cells of a row without its end, quotes taken off.
    fn cells(&self, row: &[u8]) -> ByteRecord {
        let mut reader = ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .delimiter(self.delimiter)
            .terminator(Terminator::Any(b'\n')) // a lone `\r` belongs to its cell
            .from_reader(row);
        let mut cells = ByteRecord::new();
        // Bytes in memory, of any number of cells, are always a row.
        let _ = reader.read_byte_record(&mut cells);
        cells
    }

    fn parse(&self, row: &[u8]) -> Result<Option<Fields>, NoRecord> {
        let cells = self.cells(row);
        // Spreadsheets write such rows below a table.
        if cells.iter().all(|cell| cell.trim_ascii().is_empty()) {
            return Ok(None);
        }
        let n = self.columns.len();
        if cells.iter().skip(n).any(|cell| !cell.is_empty()) {
            let what = format!("{n} fields as in the header instead of {}", cells.len());
            return Err(NoRecord::expected(what, row));
        }
        // The first line has the row's own beginning.
        if row
            .split(|byte| *byte == b'\n')
            .skip(1)
            .any(|line| self.is_like_row(line))
        {
            let what = "quotes that are closed before the next row".to_owned();
            return Err(NoRecord::expected(what, row));
        }
        let mut fields = Fields::default();
        for (name, cell) in self.columns.iter().zip(cells.iter()) {
            let cell = std::str::from_utf8(cell).map_err(|e| NoRecord::because(row, e.into()))?;
            fields.set(name, cell);
        }
        let is_header = COLUMNS.iter().all(|name| {
            fields
                .string(name)
                .is_none_or(|cell| cell.trim().eq_ignore_ascii_case(name))
        });
        Ok((!is_header).then_some(fields))
    }

    /// Whether a line that stands within quotes is a row of its own, so that a quote is missing.
    fn is_like_row(&self, line: &[u8]) -> bool {
        const MANY: usize = 8; // a sentence rarely has so many commas
        let n_delimiters = line.iter().filter(|byte| **byte == self.delimiter).count();
        if n_delimiters + 1 < self.columns.len() {
            return false;
        }
        let cells = self.cells(text::content(line));
        if cells.len() != self.columns.len() || self.ends_quotes(line) {
            return false;
        }
        let place = |column: &str| self.columns.iter().position(|name| name == column);
        let cell = |column: &str| place(column).and_then(|at| cells.get(at));
        let size = cell("size").unwrap_or_default();
        let is_size = |byte: &u8| byte.is_ascii_digit() || b".,eE+".contains(byte);
        let is_number = size.first().is_some_and(u8::is_ascii_digit) && size.iter().all(is_size);
        let path = std::str::from_utf8(cell("path").unwrap_or_default());
        let is_picture = path.is_ok_and(|path| Kind::of(Path::new(path)) != Kind::Other);
        // Tags may be as many as the columns: only a file without sizes is judged by the number of its cells.
        is_number || is_picture || place("size").is_none() && cells.len() >= MANY
    }

    /// Whether a line that begins within quotes ends them as it should: by a quote before a delimiter or the
    /// end of the line.
    fn ends_quotes(&self, line: &[u8]) -> bool {
        let line = text::content(line);
        let mut at = 0;
        while let Some(before) = line[at..].iter().position(|byte| *byte == b'"') {
            at += before + 1;
            match line.get(at) {
                Some(b'"') => at += 1, // two of them are a character
                next => return next.is_none_or(|byte| *byte == self.delimiter),
            }
        }
        false
    }

    /// The row of some fields, without its end.
    fn row(&self, fields: &Fields) -> String {
        let cell = |name: &String| fields.text(name).unwrap_or_default();
        let cells: Vec<String> = self.columns.iter().map(cell).collect();
        match self.columns.split_last() {
            // Its few words tell where it ends; other text needs quotes for that.
            Some((name, _)) if name != "stop" => {
                let (last, before) = cells.split_last().expect("as many as columns");
                let last = format!("\"{}\"", last.replace('"', "\"\""));
                self.beginning(before) + &last
            }
            _ => self.written(&cells),
        }
    }

    /// Cells, with the delimiter behind each.
    fn beginning<C: AsRef<[u8]>>(&self, cells: &[C]) -> String {
        let mut all: Vec<&[u8]> = cells.iter().map(AsRef::as_ref).collect();
        all.push(b"x");
        let mut row = self.written(&all);
        row.pop();
        row
    }

    fn written<C: AsRef<[u8]>>(&self, cells: &[C]) -> String {
        let mut writer = WriterBuilder::new()
            .delimiter(self.delimiter)
            .from_writer(Vec::new());
        writer.write_record(cells).expect("memory can be written");
        let bytes = writer.into_inner().expect("memory can be written");
        let row = String::from_utf8_lossy(&bytes);
        row.strip_suffix('\n').unwrap_or(&row).to_owned()
    }

    /// Whether a row without an end is the beginning of one that this program wrote: quotes are where it
    /// sets them, and only the last cell is without its end.
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

    /// Whether the rest of the row stands within the quotes that `last` begins with, behind `n_before` cells,
    /// so that a person left out a quote.
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

/// Where quotes are open. As RFC 4180 says, they open at the beginning of a field only; elsewhere a quote is
/// a character.
#[derive(Default)]
struct Quotes {
    /// Where the quotes began that are open.
    open: Option<usize>,
    /// What a further byte would be.
    place: Place,
}

#[derive(Clone, Copy, Default, PartialEq)]
enum Place {
    #[default]
    FieldStart,
    Plain,
    Quoted,
    /// Behind a quote within quotes: their end, or the first of two.
    AfterQuote,
}

impl Quotes {
    /// Goes over a line that stands `begin` bytes behind the beginning of its row.
    fn pass(&mut self, line: &[u8], begin: usize, delimiter: u8) {
        for (at, byte) in (begin..).zip(line) {
            self.place = match (self.place, *byte) {
                (Place::FieldStart, b'"') => {
                    self.open = Some(at);
                    Place::Quoted
                }
                (Place::Quoted, b'"') => Place::AfterQuote,
                (Place::AfterQuote, b'"') | (Place::Quoted, _) => Place::Quoted,
                (_, byte) => {
                    self.open = None;
                    let is_end = byte == delimiter || byte == b'\n';
                    if is_end {
                        Place::FieldStart
                    } else {
                        Place::Plain
                    }
                }
            };
        }
        if self.place == Place::AfterQuote {
            self.open = None; // should a second quote follow, it stands in the same line
        }
    }
}

fn parse_json(line: &[u8]) -> Result<Fields, NoRecord> {
    serde_json::from_slice(line).map_err(|error| {
        let text = line.trim_ascii_start();
        if text.starts_with(b"[") {
            let what = "a JSON object a line (`jq -c '.[]'` makes lines of an array)";
            NoRecord::expected(what.to_owned(), line)
        } else if text.starts_with(b"{") && error.is_eof() {
            let what = "a whole JSON object on the line (`jq -c .` writes each on a line)";
            NoRecord::expected(what.to_owned(), line)
        } else {
            NoRecord::because(line, error.into())
        }
    })
}

/// Whether a line without an end is the beginning of a JSON record that this program wrote, which has no
/// space between its parts.
fn is_torn_json(line: &[u8]) -> bool {
    const BEGINNING: &[u8] = b"{\"path\":\"";
    let n = line.len().min(BEGINNING.len());
    let is_ours = line[..n] == BEGINNING[..n];
    let error = serde_json::from_slice::<Value>(line).err();
    let is_short = line.len() <= MAX_TORN_BYTES;
    is_ours && is_short && is_compact(line) && error.is_some_and(|error| error.is_eof())
}
