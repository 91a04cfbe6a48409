//! The layout of a model file that is written.

use super::{CHECKSUM_LEN, keys};
use crate::model::{
    gguf::{Header, Metadata, TensorInfo},
    quant::GgmlType,
};

/// A GGUF embedded in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// Partial-LoRA, in the form of llama.cpp's LoRA adapters.
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

/// A piece of the data section, in file order. Zeros pad each to [`ALIGNMENT`](crate::model::gguf::ALIGNMENT).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Section<'a> {
    /// The header of a view, and its bytes.
    View(View, &'a [u8]),
    /// A tensor; the caller provides its data.
    Tensor(&'a TensorInfo),
}

/// The layout of a model file: its header, and the order of what follows.
#[derive(Clone, Debug)]
pub struct Layout {
    outer: Header,
    adapter: Vec<u8>,
    decoder: Vec<u8>,
}

impl Layout {
    /// Lays out a file with `metadata` and the `vision` tensors (tower and projector) in the outer header, then the
    /// two views.
    ///
    /// The outer header also lists the tensors of both views. The checksum key is added here; [`Self::encode_header`]
    /// sets its value.
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

    /// The header's bytes. Their number does not depend on the checksum, so a writer can reserve space for them and
    /// write them after the data.
    ///
    /// # Panics
    /// If `checksum` does not have [`CHECKSUM_LEN`] characters.
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
