//! Resuming after runs that ended in various ways.

use super::*;

#[test]
fn only_an_unused_new_file_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("captions");
    for format in [Format::Jsonl, Format::Csv] {
        drop(Journal::open(&path, format, &settings()).unwrap());
        assert!(!path.exists());
        fs::write(&path, "").unwrap();
        drop(Journal::open(&path, format, &settings()).unwrap());
        assert!(path.exists());
        fs::remove_file(&path).unwrap();
    }
}

#[test]
fn the_next_run_knows_what_is_done() {
    for format in [Format::Jsonl, Format::Csv] {
        let fixture = Fixture::new(format);
        let mut journal = fixture.open();
        journal.append(&record("a", 1, "A,\n\"one\"")).unwrap();
        journal.append(&failure("b", 2)).unwrap();
        drop(journal);

        let journal = fixture.open();
        assert_eq!(journal.n_known(), 2);
        assert_eq!(journal.status("a", of_size(1)), Status::Captioned);
        assert_eq!(journal.status("a", of_size(9)), Status::Changed);
        assert_eq!(journal.status("b", of_size(2)), Status::Failed);
        assert_eq!(journal.status("c", of_size(1)), Status::New);
        assert_eq!(journal.caption("a").unwrap().unwrap(), "A,\n\"one\"");
        assert_eq!(journal.caption("b").unwrap().unwrap_or_default(), "");
    }
}

#[test]
fn a_file_truncated_anywhere_is_repaired() {
    for format in [Format::Jsonl, Format::Csv] {
        let fixture = Fixture::new(format);
        let mut journal = fixture.open();
        let names = ["a", "b", "c"];
        for name in names {
            journal
                .append(&record(name, 1, "line one,\nline \"two\"\n"))
                .unwrap();
        }
        drop(journal);
        let whole = fs::read(fixture.path()).unwrap();
        for cut in 0..whole.len() {
            fs::write(fixture.path(), &whole[..cut]).unwrap();
            let mut journal = fixture.open();
            for name in names {
                if journal.status(name, of_size(1)) == Status::New {
                    journal
                        .append(&record(name, 1, "line one,\nline \"two\"\n"))
                        .unwrap();
                }
            }
            drop(journal);
            assert!(fs::read(fixture.path()).unwrap() == whole, "cut at {cut}");
            // Removed bytes are saved: nothing is lost.
            let lost = fixture.others();
            let saved: Vec<u8> = lost.iter().flat_map(|(_, bytes)| bytes.clone()).collect();
            assert!(whole[..cut].ends_with(&saved), "cut at {cut}: {lost:?}");
            assert!(lost.len() < 2 && lost.iter().all(|(name, _)| name == "captions.torn-1"));
            lost.iter()
                .for_each(|(name, _)| fs::remove_file(fixture.dir.path().join(name)).unwrap());
        }
    }
}

#[test]
fn an_error_beside_a_caption_is_stored_until_it_is_resolved() {
    for format in [Format::Jsonl, Format::Csv] {
        let fixture = Fixture::new(format);
        let mut journal = fixture.open();
        journal.append(&record("a", 1, "x")).unwrap();
        let plain = fixture.text();
        let error = |journal: &Journal| {
            let fields = journal.fields("a").unwrap().unwrap();
            fields.text("error").filter(|error| !error.is_empty())
        };
        for _ in 0..2 {
            journal.set_error("a", Some("no copy")).unwrap();
        }
        assert_eq!(error(&journal).as_deref(), Some("no copy"));
        assert_eq!(fixture.lines().len(), 2);
        assert_eq!(journal.status("a", of_size(1)), Status::Captioned);
        drop(journal);
        let mut journal = fixture.open();
        assert_eq!(error(&journal).as_deref(), Some("no copy"));
        journal.set_error("a", None).unwrap();
        journal.set_error("b", None).unwrap();
        journal.tidy().unwrap();
        assert_eq!(fixture.text(), plain);
        assert!(fixture.others().is_empty());
    }
}

#[test]
fn a_picture_captioned_again_ends_with_one_line() {
    for format in [Format::Jsonl, Format::Csv] {
        let fixture = Fixture::new(format);
        let mut journal = fixture.open();
        for (path, size) in [("a", 1), ("b", 1), ("a", 2), ("c", 1)] {
            journal.append(&record(path, size, "x")).unwrap();
        }
        // If killed here, both lines exist, and the next run drops the earlier one.
        assert_eq!(fixture.lines().len(), 4);
        drop(journal);
        let mut journal = fixture.open();
        let lines = |names: [(&str, u64); 3]| names.map(|(n, size)| (n.to_owned(), size)).to_vec();
        assert_eq!(fixture.lines(), lines([("b", 1), ("a", 2), ("c", 1)]));

        // Likewise at the end of a run; the new file is locked, too.
        journal.append(&failure("b", 3)).unwrap();
        journal.tidy().unwrap();
        assert_eq!(fixture.lines(), lines([("a", 2), ("c", 1), ("b", 3)]));
        assert_eq!(journal.status("c", of_size(1)), Status::Captioned);
        let second = Journal::open(&fixture.path(), format, &settings());
        assert!(matches!(second, Err(JournalError::Busy { .. })));
        journal.append(&record("d", 4, "x")).unwrap();
        assert_eq!(journal.status("d", of_size(4)), Status::Captioned);
        assert_eq!(fixture.lines().len(), 4);
    }
}

#[test]
fn zeros_of_a_power_failure_are_set_aside_and_records_before_them_kept() {
    for format in [Format::Jsonl, Format::Csv] {
        let text = sample(format);
        for (n_cut, n_known) in [(0, 3), (1, 3), (40, 2)] {
            let fixture = Fixture::new(format);
            fixture.write([&text.as_bytes()[..text.len() - n_cut], &[0; 512]].concat());
            let mut journal = fixture.open();
            assert_eq!(journal.n_known(), n_known);
            assert!(journal.take_set_aside().torn.unwrap().0 >= 512);
            assert!(!fixture.text().contains('\0'));
            assert_eq!(fixture.others().len(), 1);
        }
    }
}

#[test]
fn links_and_permissions_are_kept() {
    use std::os::unix::fs::PermissionsExt;
    let fixture = Fixture::new(Format::Jsonl);
    let disk = fixture.dir.path().join("disk");
    fs::create_dir(&disk).unwrap();
    std::os::unix::fs::symlink(disk.join("real"), fixture.path()).unwrap();
    drop(fixture.open());
    assert!(fixture.path().is_symlink() && !disk.join("real").exists());
    let mut journal = fixture.open();
    journal.append(&record("a", 1, "x")).unwrap();
    fs::set_permissions(disk.join("real"), fs::Permissions::from_mode(0o640)).unwrap();
    journal.append(&record("a", 2, "x")).unwrap();
    journal.tidy().unwrap();
    drop(journal);
    assert!(fixture.path().is_symlink());
    let real = disk.join("real").metadata().unwrap();
    assert_eq!(real.permissions().mode() & 0o777, 0o640);
    assert_eq!(fixture.lines(), [("a".to_owned(), 2)]);
    // Both hard links of a file keep showing the records.
    fs::hard_link(disk.join("real"), disk.join("name")).unwrap();
    let mut journal = fixture.open();
    journal.append(&record("a", 3, "y")).unwrap();
    journal.tidy().unwrap();
    drop(journal);
    assert_eq!(
        fs::read(disk.join("name")).unwrap(),
        fs::read(disk.join("real")).unwrap()
    );
    assert_eq!(fixture.open().status("a", of_size(3)), Status::Captioned);
}

#[test]
fn names_of_any_bytes_and_length_work() {
    let fixture = Fixture::new(Format::Jsonl);
    let long = fixture.dir.path().join("图".repeat(85));
    for path in ["a\nb", "-", " x ", r"caf\xe9", r"caf\x5cxe9"] {
        let mut journal = Journal::open(&long, Format::Csv, &settings()).unwrap();
        journal.append(&record(path, 1, "x")).unwrap();
        journal.append(&record(path, 2, "y")).unwrap();
        journal.tidy().unwrap();
        assert_eq!(journal.status(path, of_size(2)), Status::Captioned);
    }
    let journal = Journal::open(&long, Format::Csv, &settings()).unwrap();
    assert_eq!(journal.n_known(), 5);
    assert!(fixture.dir.path().join("records.replaced").exists());
}
