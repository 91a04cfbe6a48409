//! Reads the list of tensors in a PyTorch weight file: a pickle, interpreted without running any code.
//!
//! A pickle is a program for a small stack machine, and Python's own reader lets that program call any function.
//! This interpreter supports only the names that `torch.save` writes for a state dict; [`Machine::reduce`]
//! implements their calls. Of any other class it keeps only the name. In a state dict, such a class is refused;
//! elsewhere in a training program's dictionary, it is ignored.
//!
//! Values are indices into an arena, so nothing recurses: nesting cannot exhaust the stack, and memory is bounded
//! by the length of the pickle.
//!
//! The crate `pytorch-reader` was considered. It reads lazily and supports strides, but it keeps unknown classes
//! instead of refusing them, cannot read a few rows of a tensor (the embeddings of the 7B model are 758 MB), and
//! is a pre-release of 5000 lines.

use std::collections::HashMap;

/// What is wrong with a pickle.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum PickleError {
    /// Its state dict contains a class or function that does not belong in a weight file.
    #[error(
        "pickle: expected only tensors, parameters and ordered dictionaries, found class `{name}`; refused \
         without running it"
    )]
    ForeignClass { name: String },
    /// It uses an instruction that weight files do not need.
    #[error("pickle: instruction {opcode:#04x} at byte {at}: not used in weight files")]
    Opcode { opcode: u8, at: usize },
    /// It ends within an instruction.
    #[error("pickle: truncated at byte {at}")]
    Truncated { at: usize },
    /// Its instructions are inconsistent.
    #[error("pickle: byte {at}: expected {expected}")]
    Invalid { at: usize, expected: &'static str },
    /// It is not a dictionary of tensors.
    #[error("pickle: expected a dictionary of tensors, found {found}")]
    NotAStateDict { found: &'static str },
}

/// A tensor in a pickle: a view of a storage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PickledTensor {
    /// The storage's class, for example `BFloat16Storage`.
    pub storage_class: String,
    /// Name of the storage's entry in the archive.
    pub storage_key: String,
    /// In elements, from the start of the storage.
    pub offset: usize,
    pub shape: Vec<usize>,
    /// In elements.
    pub strides: Vec<usize>,
}

/// Reads a state dict: names and tensors in the order of the file.
pub(super) fn read_state_dict(pickle: &[u8]) -> Result<Vec<(String, PickledTensor)>, PickleError> {
    let mut machine = Machine {
        bytes: pickle,
        at: 0,
        nodes: Vec::new(),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
    };
    let root = machine.run()?;
    machine.state_dict(machine.unwrapped(root, MAX_WRAPPERS))
}

/// Keys under which training programs save a model's state dict.
const WRAPPERS: [&str; 4] = ["state_dict", "model_state_dict", "model", "module"];

/// Maximum depth of nested wrappers; a dictionary can contain itself.
const MAX_WRAPPERS: usize = 4;

/// Index of a value in the arena.
type Id = usize;

enum Node {
    None,
    Bool,
    Int(i64),
    Float,
    Str(String),
    Tuple(Vec<Id>),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    /// A known function or class.
    Global(Global),
    /// An unknown class or function, or its result.
    Foreign(String),
    Bytes,
    Storage {
        class: String,
        key: String,
    },
    Tensor(PickledTensor),
}

impl Node {
    fn kind(&self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Bool => "a truth value",
            Self::Int(_) => "a number",
            Self::Float => "a float",
            Self::Str(_) => "a string",
            Self::Tuple(_) => "a tuple",
            Self::List(_) => "a list",
            Self::Dict(_) => "a dictionary",
            Self::Global(_) | Self::Foreign(_) => "a class",
            Self::Bytes => "bytes",
            Self::Storage { .. } => "a storage",
            Self::Tensor(_) => "a single tensor",
        }
    }
}

#[derive(Clone)]
enum Global {
    OrderedDict,
    RebuildTensor,
    RebuildParameter,
    Storage(String),
}

impl Global {
    /// The known function or class of this name.
    fn named(module: &str, name: &str) -> Option<Self> {
        match (module, name) {
            ("collections", "OrderedDict") => Some(Self::OrderedDict),
            ("torch._utils", "_rebuild_tensor_v2") => Some(Self::RebuildTensor),
            ("torch._utils", "_rebuild_parameter") => Some(Self::RebuildParameter),
            ("torch", "BFloat16Storage" | "HalfStorage" | "FloatStorage" | "DoubleStorage")
            | ("torch", "LongStorage" | "IntStorage" | "ShortStorage" | "CharStorage")
            | ("torch", "ByteStorage" | "BoolStorage") => Some(Self::Storage(name.to_owned())),
            _ => None,
        }
    }
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    nodes: Vec<Node>,
    stack: Vec<Id>,
    /// Stack heights of the marks.
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
}

impl<'a> Machine<'a> {
    fn run(&mut self) -> Result<Id, PickleError> {
        loop {
            let at = self.at;
            let [opcode] = self.take()?;
            match opcode {
                b'.' => return self.pop(),
                b'(' => self.marks.push(self.stack.len()),
                b'0' => drop(self.pop()?),
                b'1' => drop(self.pop_mark()?),
                b'2' => {
                    let top = self.top()?;
                    self.stack.push(top);
                }
                0x80 => drop(self.take::<1>()?), // protocol number
                0x95 => drop(self.take::<8>()?), // frame length
                b'q' | b'r' | 0x94 | b'h' | b'j' => self.memo_op(opcode)?,
                b'N' => self.push(Node::None),
                0x88 | 0x89 => self.push(Node::Bool),
                b'J' | b'K' | b'M' | 0x8a => self.int(opcode)?,
                b'G' => {
                    self.take::<8>()?;
                    self.push(Node::Float);
                }
                b'X' | 0x8c | 0x8d | b'U' | b'T' => self.string(opcode)?,
                b'B' | b'C' | 0x8e => self.bytes(opcode)?,
                b')' | b't' | 0x85..=0x87 => self.tuple(opcode)?,
                b']' => self.push(Node::List(Vec::new())),
                b'a' | b'e' => self.append(opcode)?,
                b'}' => self.push(Node::Dict(Vec::new())),
                b's' | b'u' => self.set_items(opcode)?,
                b'c' | 0x93 => self.global(opcode)?,
                b'Q' => self.persistent_id()?,
                b'R' | 0x81 => self.reduce()?,
                b'b' => self.build()?,
                _ => return Err(PickleError::Opcode { opcode, at }),
            }
        }
    }

    /// `PUT`, `MEMOIZE` and `GET`.
    fn memo_op(&mut self, opcode: u8) -> Result<(), PickleError> {
        let key = match opcode {
            b'q' | b'h' => u32::from(self.take::<1>()?[0]),
            b'r' | b'j' => u32::from_le_bytes(self.take()?),
            _ => self.memo.len() as u32,
        };
        if matches!(opcode, b'h' | b'j') {
            let id = self.memo.get(&key).copied();
            let id = id.ok_or_else(|| self.invalid("a memoized value"))?;
            self.stack.push(id);
        } else {
            let top = self.top()?;
            self.memo.insert(key, top);
        }
        Ok(())
    }

    fn int(&mut self, opcode: u8) -> Result<(), PickleError> {
        let value = match opcode {
            b'K' => i64::from(self.take::<1>()?[0]),
            b'M' => i64::from(u16::from_le_bytes(self.take()?)),
            b'J' => i64::from(i32::from_le_bytes(self.take()?)),
            _ => {
                let [n] = self.take()?;
                let raw = self.take_slice(n.into())?;
                if raw.len() > 8 {
                    return Err(self.invalid("a number of at most 64 bits"));
                }
                let fill = if raw.last().is_some_and(|b| b & 0x80 != 0) {
                    0xff
                } else {
                    0
                };
                let mut wide = [fill; 8];
                wide[..raw.len()].copy_from_slice(raw);
                i64::from_le_bytes(wide)
            }
        };
        self.push(Node::Int(value));
        Ok(())
    }

    fn string(&mut self, opcode: u8) -> Result<(), PickleError> {
        let length = match opcode {
            0x8c | b'U' => u64::from(self.take::<1>()?[0]),
            0x8d => u64::from_le_bytes(self.take()?),
            _ => u64::from(u32::from_le_bytes(self.take()?)),
        };
        let raw = self.take_slice(length)?;
        let text = std::str::from_utf8(raw).map(str::to_owned);
        let text = text.map_err(|_| self.invalid("UTF-8"))?;
        self.push(Node::Str(text));
        Ok(())
    }

    /// Skips bytes: a state dict does not contain any.
    fn bytes(&mut self, opcode: u8) -> Result<(), PickleError> {
        let length = match opcode {
            b'C' => u64::from(self.take::<1>()?[0]),
            b'B' => u64::from(u32::from_le_bytes(self.take()?)),
            _ => u64::from_le_bytes(self.take()?),
        };
        self.take_slice(length)?;
        self.push(Node::Bytes);
        Ok(())
    }

    fn tuple(&mut self, opcode: u8) -> Result<(), PickleError> {
        let items = match opcode {
            b')' => Vec::new(),
            b't' => self.pop_mark()?,
            _ => {
                let n = usize::from(opcode - 0x84);
                let from = self.stack.len().checked_sub(n);
                let from = from.ok_or_else(|| self.invalid("more values on the stack"))?;
                self.stack.split_off(from)
            }
        };
        self.push(Node::Tuple(items));
        Ok(())
    }

    fn append(&mut self, opcode: u8) -> Result<(), PickleError> {
        let items = if opcode == b'a' {
            vec![self.pop()?]
        } else {
            self.pop_mark()?
        };
        let list = self.top()?;
        match &mut self.nodes[list] {
            Node::List(list) => list.extend(items),
            Node::Foreign(_) => {}
            _ => return Err(self.invalid("a list to append to")),
        }
        Ok(())
    }

    fn set_items(&mut self, opcode: u8) -> Result<(), PickleError> {
        let items = if opcode == b's' {
            let value = self.pop()?;
            vec![self.pop()?, value]
        } else {
            self.pop_mark()?
        };
        let (pairs, rest) = items.as_chunks::<2>();
        if !rest.is_empty() {
            return Err(self.invalid("a value for every key"));
        }
        let dict = self.top()?;
        match &mut self.nodes[dict] {
            Node::Dict(entries) => entries.extend(pairs.iter().map(|[key, value]| (*key, *value))),
            Node::Foreign(_) => {}
            _ => return Err(self.invalid("a dictionary to fill")),
        }
        Ok(())
    }

    fn global(&mut self, opcode: u8) -> Result<(), PickleError> {
        let (module, name) = if opcode == b'c' {
            (self.line()?, self.line()?)
        } else {
            let (name, module) = (self.pop()?, self.pop()?);
            match (&self.nodes[module], &self.nodes[name]) {
                (Node::Str(module), Node::Str(name)) => (module.clone(), name.clone()),
                _ => return Err(self.invalid("the name of a class")),
            }
        };
        let foreign = || Node::Foreign(format!("{module}.{name}"));
        self.push(Global::named(&module, &name).map_or_else(foreign, Node::Global));
        Ok(())
    }

    /// `("storage", class, key, device, n_elements)`: a storage in the archive.
    fn persistent_id(&mut self) -> Result<(), PickleError> {
        let id = self.pop()?;
        let storage = match self.tuple_of(id) {
            Some([tag, class, key, _device, _len]) => {
                match (&self.nodes[*tag], &self.nodes[*class], &self.nodes[*key]) {
                    (
                        Node::Str(tag),
                        Node::Global(Global::Storage(class)) | Node::Foreign(class),
                        Node::Str(key),
                    ) if tag == "storage" => Some(Node::Storage {
                        class: class.clone(),
                        key: key.clone(),
                    }),
                    _ => None,
                }
            }
            _ => None,
        };
        let storage = storage.ok_or_else(|| self.invalid("a reference to a storage"))?;
        self.push(storage);
        Ok(())
    }

    /// "Calls" one of the known functions.
    fn reduce(&mut self) -> Result<(), PickleError> {
        let (arguments, callee) = (self.pop()?, self.pop()?);
        let callee = match &self.nodes[callee] {
            Node::Global(callee) => callee,
            Node::Foreign(name) => {
                let made = Node::Foreign(name.clone());
                self.push(made);
                return Ok(());
            }
            _ => return Err(self.invalid("a function to call")),
        };
        let Node::Tuple(arguments) = &self.nodes[arguments] else {
            return Err(self.invalid("a tuple of arguments"));
        };
        let result = match (callee, &arguments[..]) {
            (Global::OrderedDict, []) => Node::Dict(Vec::new()),
            (Global::RebuildTensor, [storage, offset, shape, strides, ..]) => {
                self.rebuild_tensor(*storage, *offset, *shape, *strides)?
            }
            // A parameter consists of its tensor and a flag.
            (Global::RebuildParameter, [data, ..]) => match &self.nodes[*data] {
                Node::Tensor(tensor) => Node::Tensor(tensor.clone()),
                _ => return Err(self.invalid("a parameter that holds a tensor")),
            },
            _ => return Err(self.invalid("the arguments of a tensor")),
        };
        self.push(result);
        Ok(())
    }

    fn rebuild_tensor(
        &self,
        storage: Id,
        offset: Id,
        shape: Id,
        strides: Id,
    ) -> Result<Node, PickleError> {
        let size = |id: Id| match self.nodes[id] {
            Node::Int(n) => usize::try_from(n).ok(),
            _ => None,
        };
        let sizes = |id: Id| {
            self.tuple_of(id)?
                .iter()
                .map(|&i| size(i))
                .collect::<Option<Vec<_>>>()
        };
        let Node::Storage { class, key } = &self.nodes[storage] else {
            return Err(self.invalid("the storage of a tensor"));
        };
        match (size(offset), sizes(shape), sizes(strides)) {
            (Some(offset), Some(shape), Some(strides)) if shape.len() == strides.len() => {
                Ok(Node::Tensor(PickledTensor {
                    storage_class: class.clone(),
                    storage_key: key.clone(),
                    offset,
                    shape,
                    strides,
                }))
            }
            _ => Err(self.invalid("offset, shape and strides of a tensor")),
        }
    }

    /// Ignores attributes of a dictionary (`_metadata`: versions of modules).
    fn build(&mut self) -> Result<(), PickleError> {
        self.pop()?;
        let top = self.top()?;
        match self.nodes[top] {
            Node::Dict(_) | Node::Foreign(_) => Ok(()),
            _ => Err(self.invalid("a dictionary for attributes")),
        }
    }

    /// The state dict in a training program's dictionary, or `root` itself.
    fn unwrapped(&self, root: Id, depth: usize) -> Id {
        let Node::Dict(entries) = &self.nodes[root] else {
            return root;
        };
        let inner = WRAPPERS.iter().find_map(|wrapper| {
            let is_key = |id: Id| matches!(&self.nodes[id], Node::Str(key) if key == wrapper);
            let (_, value) = entries.iter().rfind(|(key, _)| is_key(*key))?;
            matches!(&self.nodes[*value], Node::Dict(_)).then_some(*value)
        });
        match inner {
            Some(inner) if depth > 0 => self.unwrapped(inner, depth - 1),
            _ => root,
        }
    }

    fn state_dict(&self, root: Id) -> Result<Vec<(String, PickledTensor)>, PickleError> {
        let Node::Dict(entries) = &self.nodes[root] else {
            return Err(self.no_state_dict(root));
        };
        let pair = |&(key, value): &(Id, Id)| match (&self.nodes[key], &self.nodes[value]) {
            (Node::Str(name), Node::Tensor(tensor)) => Ok((name.clone(), tensor.clone())),
            (Node::Str(_), _) => Err(self.no_state_dict(value)),
            _ => Err(self.no_state_dict(key)),
        };
        entries.iter().map(pair).collect()
    }

    /// The error for a value that is not a state dict, a name or a tensor.
    fn no_state_dict(&self, id: Id) -> PickleError {
        match &self.nodes[id] {
            Node::Foreign(name) => PickleError::ForeignClass { name: name.clone() },
            other => PickleError::NotAStateDict {
                found: other.kind(),
            },
        }
    }

    fn push(&mut self, node: Node) {
        self.stack.push(self.nodes.len());
        self.nodes.push(node);
    }

    /// Pops a value, but none below the last mark.
    fn pop(&mut self) -> Result<Id, PickleError> {
        let floor = self.marks.last().copied().unwrap_or(0);
        if self.stack.len() <= floor {
            return Err(self.invalid("a value on the stack"));
        }
        Ok(self.stack.pop().expect("not empty"))
    }

    fn top(&self) -> Result<Id, PickleError> {
        let top = self.stack.last().copied();
        top.ok_or_else(|| self.invalid("a value on the stack"))
    }

    fn pop_mark(&mut self) -> Result<Vec<Id>, PickleError> {
        let mark = self.marks.pop().filter(|&m| m <= self.stack.len());
        let mark = mark.ok_or_else(|| self.invalid("a mark on the stack"))?;
        Ok(self.stack.split_off(mark))
    }

    fn tuple_of(&self, id: Id) -> Option<&[Id]> {
        match &self.nodes[id] {
            Node::Tuple(items) => Some(items),
            _ => None,
        }
    }

    fn line(&mut self) -> Result<String, PickleError> {
        let rest = &self.bytes[self.at..];
        let end = rest.iter().position(|b| *b == b'\n');
        let end = end.ok_or(PickleError::Truncated {
            at: self.bytes.len(),
        })?;
        let text = std::str::from_utf8(&rest[..end]).map(str::to_owned);
        let text = text.map_err(|_| self.invalid("UTF-8"))?;
        self.at += end + 1;
        Ok(text)
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], PickleError> {
        let slice = self.take_slice(N as u64)?;
        Ok(slice.try_into().expect("as long as asked for"))
    }

    fn take_slice(&mut self, n: u64) -> Result<&'a [u8], PickleError> {
        let rest = &self.bytes[self.at..];
        let n = usize::try_from(n).ok().filter(|n| *n <= rest.len());
        let n = n.ok_or(PickleError::Truncated {
            at: self.bytes.len(),
        })?;
        self.at += n;
        Ok(&rest[..n])
    }

    fn invalid(&self, expected: &'static str) -> PickleError {
        PickleError::Invalid {
            at: self.at,
            expected,
        }
    }
}
