//! Our files, read by the independent crate `gguf-rs`.

use xc2_convert::mix::Preset;
use xc2_edge::model::gguf::GgufFile;

#[test]
fn an_independent_reader_lists_every_tensor_and_key() {
    for preset in [Preset::F32, Preset::F16, Preset::Q4K] {
        let path = crate::common::model("tiny-composer", preset);
        let ours = GgufFile::open(&path).unwrap();
        let mut reader = gguf_rs::get_gguf_container(path.to_str().unwrap()).unwrap();
        let theirs = reader.decode().unwrap();
        assert_eq!(theirs.tensors().len(), ours.tensors().len());
        for (t, o) in theirs.tensors().iter().zip(ours.tensors()) {
            assert_eq!((&t.name, t.kind), (&o.name, o.ty.id()));
        }
        for (key, _) in &ours.metadata().0 {
            assert!(theirs.metadata().contains_key(key), "{key}");
        }
    }
}
