//! A model file is untrusted input: reading any bytes gives a value or an error that says what is wrong, without a
//! panic and without allocating more memory than the bytes justify.

use xc2_edge::model::gguf::GgufFile;

fn header(n_tensors: u64, n_metadata: u64) -> Vec<u8> {
    let mut file = b"GGUF".to_vec();
    file.extend(3u32.to_le_bytes());
    file.extend(n_tensors.to_le_bytes());
    file.extend(n_metadata.to_le_bytes());
    file
}

fn string(s: &str) -> Vec<u8> {
    [&(s.len() as u64).to_le_bytes()[..], s.as_bytes()].concat()
}

/// A tensor entry: name, dimensions, type id and offset.
fn tensor(name: &str, dims: &[u64], ty: u32, offset: u64) -> Vec<u8> {
    let mut entry = string(name);
    entry.extend((dims.len() as u32).to_le_bytes());
    dims.iter().for_each(|d| entry.extend(d.to_le_bytes()));
    entry.extend(ty.to_le_bytes());
    entry.extend(offset.to_le_bytes());
    entry
}

/// A metadata entry with a value in bytes.
fn entry(key: &str, ty: u32, value: &[u8]) -> Vec<u8> {
    [string(key), ty.to_le_bytes().to_vec(), value.to_vec()].concat()
}

/// A file of one tensor entry, with room for data.
fn with_tensor(entry: &[u8]) -> Vec<u8> {
    [header(1, 0), entry.to_vec(), vec![0; 4096]].concat()
}

fn with_metadata(entry: &[u8]) -> Vec<u8> {
    [header(0, 1), entry.to_vec(), vec![0; 64]].concat()
}

#[track_caller]
fn assert_rejects(file: Vec<u8>, naming: &str) {
    match GgufFile::from_bytes(file.into()) {
        Ok(_) => panic!("accepted; expected an error that names `{naming}`"),
        Err(error) => {
            let message = error.to_string();
            assert!(
                message.contains(naming),
                "`{message}` does not name `{naming}`"
            );
        }
    }
}

#[test]
fn a_valid_file_is_accepted() {
    let file = with_tensor(&tensor("w", &[32, 4], 0, 0));
    assert_eq!(
        GgufFile::from_bytes(file.into()).unwrap().tensors().len(),
        1
    );
}

#[test]
fn files_of_other_formats_are_named_by_their_first_bytes() {
    assert_rejects(vec![], "an empty file");
    assert_rejects(b"PK\x03\x04rest".to_vec(), "PK\\x03\\x04");
    assert_rejects(b"GG".to_vec(), "`GG`");
}

#[test]
fn other_versions_are_refused() {
    let mut file = header(0, 0);
    file[4] = 2;
    assert_rejects(file, "version: expected 3, found 2");
    let big_endian = [b"GGUF", &3u32.to_be_bytes()[..], &[0; 16]].concat();
    assert_rejects(big_endian, "version");
}

#[test]
fn counts_are_checked_against_the_remaining_bytes() {
    assert_rejects(header(u64::MAX, 0), "tensor count");
    assert_rejects(header(1 << 40, 0), "tensor count");
    assert_rejects(header(0, u64::MAX), "metadata count");
}

#[test]
fn long_strings_take_no_memory() {
    let key = [header(0, 1), u64::MAX.to_le_bytes().to_vec(), vec![0; 32]].concat();
    assert_rejects(key, "metadata key 0");
    assert_rejects(
        with_metadata(&entry("k", 8, &(1u64 << 50).to_le_bytes())),
        "`k`",
    );
}

#[test]
fn long_arrays_take_no_memory() {
    let array = |ty: u32, n: u64| [ty.to_le_bytes().to_vec(), n.to_le_bytes().to_vec()].concat();
    assert_rejects(with_metadata(&entry("k", 9, &array(6, 1 << 60))), "`k`");
    assert_rejects(with_metadata(&entry("k", 9, &array(9, 1))), "nested");
    assert_rejects(with_metadata(&entry("k", 9, &array(77, 1))), "`k`");
}

#[test]
fn counts_beyond_any_model_are_refused() {
    let n = (1u64 << 20) + 1;
    let array = [
        0u32.to_le_bytes().to_vec(),
        n.to_le_bytes().to_vec(),
        vec![0; n as usize],
    ]
    .concat();
    assert_rejects(with_metadata(&entry("k", 9, &array)), "at most 1048576");
}

#[test]
fn values_have_known_types_and_valid_content() {
    assert_rejects(with_metadata(&entry("k", 13, &[0; 8])), "`k`");
    assert_rejects(with_metadata(&entry("k", 7, &[2])), "0 or 1");
    let bad_utf8 = [&1u64.to_le_bytes()[..], &[0xff]].concat();
    assert_rejects(with_metadata(&entry("k", 8, &bad_utf8)), "UTF-8");
}

#[test]
fn a_key_or_a_tensor_occurs_once() {
    let key = entry("k", 0, &[1]);
    assert_rejects(
        [header(0, 2), key.clone(), key, vec![0; 64]].concat(),
        "`k`",
    );
    let twice = [tensor("w", &[8], 0, 0), tensor("w", &[8], 0, 32)].concat();
    assert_rejects([header(2, 0), twice, vec![0; 256]].concat(), "tensor `w`");
}

#[test]
fn names_and_dimensions_are_bounded() {
    assert_rejects(
        with_tensor(&tensor(&"n".repeat(64), &[8], 0, 0)),
        "length of the name",
    );
    assert_rejects(with_tensor(&tensor("", &[8], 0, 0)), "length of the name");
    assert_rejects(with_tensor(&tensor("w", &[], 0, 0)), "number of dimensions");
    assert_rejects(
        with_tensor(&tensor("w", &[1; 5], 0, 0)),
        "number of dimensions",
    );
    assert_rejects(with_tensor(&tensor("w", &[0], 0, 0)), "dimension");
}

#[test]
fn sizes_cannot_overflow() {
    assert_rejects(
        with_tensor(&tensor("w", &[1 << 33, 1 << 33], 0, 0)),
        "shape",
    );
    assert_rejects(with_tensor(&tensor("w", &[u64::MAX / 4], 0, 0)), "shape");
    assert_rejects(
        with_tensor(&tensor("w", &[1 << 62, 1, 1, 1], 24, 0)),
        "truncated",
    );
}

#[test]
fn rows_are_whole_blocks_of_a_known_type() {
    assert_rejects(
        with_tensor(&tensor("w", &[33], 8, 0)),
        "whole blocks of q8_0",
    );
    assert_rejects(with_tensor(&tensor("w", &[32], 4, 0)), "type"); // Q4_2, removed from ggml
    assert_rejects(with_tensor(&tensor("w", &[32], u32::MAX, 0)), "type");
}

#[test]
fn data_lie_within_the_file_without_gaps_or_overlaps() {
    assert_rejects(with_tensor(&tensor("w", &[8], 0, 32)), "offset");
    let overlap = [tensor("a", &[64], 0, 0), tensor("b", &[64], 0, 128)].concat();
    assert_rejects(
        [header(2, 0), overlap, vec![0; 1024]].concat(),
        "tensor `b`: offset",
    );
    assert_rejects(with_tensor(&tensor("w", &[4096, 2], 0, 0)), "tensor `w`");
}

#[test]
fn another_alignment_is_refused() {
    let value = 64u32.to_le_bytes();
    assert_rejects(
        with_metadata(&entry("general.alignment", 4, &value)),
        "general.alignment",
    );
}

#[test]
fn every_prefix_and_every_flipped_bit_ends_without_a_panic() {
    let mut file = header(2, 2);
    file.extend(entry("general.architecture", 8, &string("xcomposer2")));
    let numbers = [
        6u32.to_le_bytes().to_vec(),
        3u64.to_le_bytes().to_vec(),
        vec![0; 12],
    ]
    .concat();
    file.extend(entry("clip.vision.image_mean", 9, &numbers));
    file.extend(tensor("v.class_embd", &[16], 0, 0));
    file.extend(tensor("mm.0.weight", &[32, 2], 8, 64));
    let list_end = file.len();
    file.extend(vec![0; 512]);
    assert!(GgufFile::from_bytes(file.clone().into()).is_ok());
    for len in 0..list_end {
        assert!(
            GgufFile::from_bytes(file[..len].to_vec().into()).is_err(),
            "prefix of {len}"
        );
    }
    for bit in 0..list_end * 8 {
        let mut damaged = file.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let _ = GgufFile::from_bytes(damaged.into());
    }
}
