//! Builds `.bin` files: zip archives of a pickle and storages.

use std::{collections::BTreeMap, fs::File, io::Write, path::Path};

use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

/// A tensor of a `.bin` file: a view of a storage.
pub struct View {
    pub name: String,
    pub storage: String,
    pub offset: usize,
    pub shape: Vec<usize>,
    pub strides: Vec<usize>,
}

/// Writes a `.bin` file of 16-bit storages.
pub fn write_bin(path: &Path, pickle: &[u8], storages: &BTreeMap<String, Vec<u8>>) {
    let mut zip = ZipWriter::new(File::create(path).unwrap());
    let stored = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    let mut entry = |name: String, bytes: &[u8]| {
        zip.start_file(name, stored).unwrap();
        zip.write_all(bytes).unwrap();
    };
    entry("archive/data.pkl".to_owned(), pickle);
    entry("archive/byteorder".to_owned(), b"little");
    for (key, bytes) in storages {
        entry(format!("archive/data/{key}"), bytes);
    }
    zip.finish().unwrap();
}

/// The pickle protocol: 2, as PyTorch writes, or 4.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    Two,
    Four,
}

/// The pickle of a state dict of half-precision tensors.
pub fn state_dict(views: &[View], protocol: Protocol) -> Vec<u8> {
    let mut p = Pickle {
        bytes: vec![0x80, if protocol == Protocol::Two { 2 } else { 4 }],
        protocol,
    };
    if protocol == Protocol::Four {
        p.bytes.extend([0x95, 0, 0, 0, 0, 0, 0, 0, 0]); // a frame; its length is not needed
    }
    p.global("collections", "OrderedDict");
    p.bytes.extend(b")Rq\x00("); // call it without arguments, remember it, mark
    for (i, view) in views.iter().enumerate() {
        p.string(&view.name);
        p.tensor(view, i % 2 == 1);
    }
    p.bytes.push(b'u');
    // The attributes that PyTorch gives a state dict.
    p.bytes.push(b'}');
    p.string("_metadata");
    p.bytes.extend(b"}sb.");
    p.bytes
}

/// The pickle of a state dict inside nested dictionaries of a training program, outermost key first, each with
/// another entry.
pub fn wrapped_state_dict(keys: &[&str], views: &[View]) -> Vec<u8> {
    let mut p = Pickle {
        bytes: vec![0x80, 2],
        protocol: Protocol::Two,
    };
    for key in keys {
        p.bytes.push(b'}');
        // `argparse.Namespace(lr=5)`, such as `args`.
        p.string("args");
        p.global("argparse", "Namespace");
        p.bytes.extend(b")\x81}");
        p.string("lr");
        p.int(5);
        p.bytes.extend(b"sbs");
        p.string("epoch");
        p.int(3);
        p.bytes.push(b's');
        p.string(key);
    }
    let inner = state_dict(views, Protocol::Two);
    p.bytes.extend(&inner[2..inner.len() - 1]);
    p.bytes.extend(keys.iter().map(|_| b's'));
    p.bytes.push(b'.');
    p.bytes
}

struct Pickle {
    bytes: Vec<u8>,
    protocol: Protocol,
}

impl Pickle {
    /// `as_parameter` wraps the tensor in a parameter.
    fn tensor(&mut self, view: &View, as_parameter: bool) {
        if as_parameter {
            self.global("torch._utils", "_rebuild_parameter");
            self.bytes.push(b'(');
        }
        self.global("torch._utils", "_rebuild_tensor_v2");
        self.bytes.extend(b"((");
        self.string("storage");
        self.global("torch", "HalfStorage");
        self.string(&view.storage);
        self.string("cpu");
        self.int(1);
        self.bytes.extend(b"tQ");
        self.int(view.offset);
        for sizes in [&view.shape, &view.strides] {
            self.bytes.push(b'(');
            sizes.iter().for_each(|n| self.int(*n));
            self.bytes.push(b't');
        }
        self.bytes.push(0x89);
        self.global("collections", "OrderedDict");
        self.bytes.extend(b")RtR");
        if as_parameter {
            self.bytes.push(0x88);
            self.global("collections", "OrderedDict");
            self.bytes.extend(b")RtR");
        }
    }

    fn global(&mut self, module: &str, name: &str) {
        match self.protocol {
            Protocol::Two => self.bytes.extend(format!("c{module}\n{name}\n").as_bytes()),
            Protocol::Four => {
                self.string(module);
                self.string(name);
                self.bytes.extend([0x93, 0x94]); // and remember it
            }
        }
    }

    fn string(&mut self, text: &str) {
        match self.protocol {
            Protocol::Two => {
                self.bytes.push(b'X');
                self.bytes.extend((text.len() as u32).to_le_bytes());
            }
            Protocol::Four => self.bytes.extend([0x8c, text.len() as u8]),
        }
        self.bytes.extend(text.as_bytes());
    }

    /// Uses each of the ways to write a number.
    fn int(&mut self, n: usize) {
        match n {
            0..=255 => self.bytes.extend([b'K', n as u8]),
            256..=65535 => {
                self.bytes.push(b'M');
                self.bytes.extend((n as u16).to_le_bytes());
            }
            n if n % 2 == 0 && i32::try_from(n).is_ok() => {
                self.bytes.push(b'J');
                self.bytes.extend((n as i32).to_le_bytes());
            }
            n => {
                self.bytes.extend([0x8a, 8]);
                self.bytes.extend((n as u64).to_le_bytes());
            }
        }
    }
}
