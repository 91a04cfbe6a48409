//! Where everything goes in a model file that is to be written.

use super::{CHECKSUM_LEN, keys};
use crate::model::{
    gguf::{Header, Metadata, TensorInfo},
    quant::GgmlType,
};

/// A GGUF within the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// Partial-LoRA, as llama.cpp reads a LoRA adapter.
    Adapter,
    /// The language model.
    Decoder,
}

impl View {
    /// The name of the tensor that holds the view's header.
    pub fn tensor_name(self) -> &'static str {
        match self {
            Self::Adapter => keys::VIEW_ADAPTER,
            Self::Decoder => keys::VIEW_DECODER,
        }
    }
}

/// A piece of the data section, in file order. Each is padded with zeros to
/// [`ALIGNMENT`](crate::model::gguf::ALIGNMENT) after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Section<'a> {
    /// The header of a view: these very bytes.
    View(View, &'a [u8]),
    /// A tensor, whose data the caller provides.
    Tensor(&'a TensorInfo),
}

/// The plan of a model file: what its header says and what follows in which order.
#[derive(Clone, Debug)]
pub struct Layout {
    outer: Header,
    adapter: Vec<u8>,
    decoder: Vec<u8>,
}

impl Layout {
    /// Lays out a file: `metadata` and the `vision` tensors (tower and projector) of the outer
    /// header, then the two views.
    ///
    /// The outer header takes up the tensors of all. The checksum key is added here; its value
    /// comes with [`Self::encode_header`].
    pub fn new(
        mut metadata: Metadata,
        vision: Vec<TensorInfo>,
        adapter: Header,
        decoder: Header,
    ) -> Self {
        metadata.set(keys::XC2_CHECKSUM, "0".repeat(CHECKSUM_LEN));
        let (adapter_bytes, decoder_bytes) = (adapter.encode(), decoder.encode());
        let view =
            |v: View, bytes: &[u8]| TensorInfo::new(v.tensor_name(), GgmlType::I8, [bytes.len()]);
        let mut tensors = vision;
        tensors.push(view(View::Adapter, &adapter_bytes));
        tensors.extend(adapter.tensors);
        tensors.push(view(View::Decoder, &decoder_bytes));
        tensors.extend(decoder.tensors);
        let outer = Header { metadata, tensors };
        Self {
            outer,
            adapter: adapter_bytes,
            decoder: decoder_bytes,
        }
    }

    /// The pieces of the data section, in order.
    pub fn sections(&self) -> impl Iterator<Item = Section<'_>> {
        self.outer.tensors.iter().map(|t| match t.name.as_str() {
            keys::VIEW_ADAPTER => Section::View(View::Adapter, &self.adapter),
            keys::VIEW_DECODER => Section::View(View::Decoder, &self.decoder),
            _ => Section::Tensor(t),
        })
    }

    /// The header's bytes. Their number does not depend on the checksum, so a writer may leave
    /// room for them and come back when the data are written.
    ///
    /// # Panics
    /// If `checksum` has not [`CHECKSUM_LEN`] characters.
    pub fn encode_header(&self, checksum: &str) -> Vec<u8> {
        assert_eq!(checksum.len(), CHECKSUM_LEN);
        let mut header = self.outer.clone();
        header.metadata.set(keys::XC2_CHECKSUM, checksum);
        header.encode()
    }

    /// Size of the data section in bytes.
    pub fn data_bytes(&self) -> usize {
        self.outer.data_bytes()
    }
}
