//! What a run leaves to the next, however it ends.

use super::*;

#[test]
fn a_file_that_was_made_for_nothing_is_gone_and_one_that_was_there_stays() {
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
fn what_is_done_is_known_to_the_next_run() {
    for format in [Format::Jsonl, Format::Csv] {
        let place = Place::new(format);
        let mut journal = place.open();
        journal.append(&record("a", 1, "A,\n\"one\"")).unwrap();
        journal.append(&failure("b", 2)).unwrap();
        drop(journal);

        let journal = place.open();
        assert_eq!(journal.n_known(), 2);
        assert_eq!(journal.standing("a", of_size(1)), Standing::Captioned);
        assert_eq!(journal.standing("a", of_size(9)), Standing::Changed);
        assert_eq!(journal.standing("b", of_size(2)), Standing::Failed);
        assert_eq!(journal.standing("c", of_size(1)), Standing::New);
        assert_eq!(journal.caption("a").unwrap().unwrap(), "A,\n\"one\"");
        assert_eq!(journal.caption("b").unwrap().unwrap_or_default(), "");
    }
}

#[test]
fn a_file_cut_anywhere_is_repaired() {
    for format in [Format::Jsonl, Format::Csv] {
        let place = Place::new(format);
        let mut journal = place.open();
        let names = ["a", "b", "c"];
        for name in names {
            journal
                .append(&record(name, 1, "line one,\nline \"two\"\n"))
                .unwrap();
        }
        drop(journal);
        let whole = fs::read(place.path()).unwrap();
        for cut in 0..whole.len() {
            fs::write(place.path(), &whole[..cut]).unwrap();
            let mut journal = place.open();
            for name in names {
                if journal.standing(name, of_size(1)) == Standing::New {
                    journal
                        .append(&record(name, 1, "line one,\nline \"two\"\n"))
                        .unwrap();
                }
            }
            drop(journal);
            assert!(fs::read(place.path()).unwrap() == whole, "cut at {cut}");
            // What was removed is kept: no byte is lost.
            let lost = place.others();
            let kept: Vec<u8> = lost.iter().flat_map(|(_, bytes)| bytes.clone()).collect();
            assert!(whole[..cut].ends_with(&kept), "cut at {cut}: {lost:?}");
            assert!(lost.len() < 2 && lost.iter().all(|(name, _)| name == "captions.torn-1"));
            lost.iter()
                .for_each(|(name, _)| fs::remove_file(place.dir.path().join(name)).unwrap());
        }
    }
}

#[test]
fn what_failed_beside_a_caption_is_noted_until_it_is_done() {
    for format in [Format::Jsonl, Format::Csv] {
        let place = Place::new(format);
        let mut journal = place.open();
        journal.append(&record("a", 1, "x")).unwrap();
        let plain = place.text();
        let error = |journal: &Journal| {
            let fields = journal.fields("a").unwrap().unwrap();
            fields.text("error").filter(|error| !error.is_empty())
        };
        for _ in 0..2 {
            journal.set_error("a", Some("no copy")).unwrap();
        }
        assert_eq!(error(&journal).as_deref(), Some("no copy"));
        assert_eq!(place.lines().len(), 2);
        assert_eq!(journal.standing("a", of_size(1)), Standing::Captioned);
        drop(journal);
        let mut journal = place.open();
        assert_eq!(error(&journal).as_deref(), Some("no copy"));
        journal.set_error("a", None).unwrap();
        journal.set_error("b", None).unwrap();
        journal.tidy().unwrap();
        assert_eq!(place.text(), plain);
        assert!(place.others().is_empty());
    }
}

#[test]
fn a_picture_captioned_again_ends_with_one_line() {
    for format in [Format::Jsonl, Format::Csv] {
        let place = Place::new(format);
        let mut journal = place.open();
        for (path, size) in [("a", 1), ("b", 1), ("a", 2), ("c", 1)] {
            journal.append(&record(path, size, "x")).unwrap();
        }
        // Killed here, both lines are there, and the next run drops the earlier one.
        assert_eq!(place.lines().len(), 4);
        drop(journal);
        let mut journal = place.open();
        let lines = |names: [(&str, u64); 3]| names.map(|(n, size)| (n.to_owned(), size)).to_vec();
        assert_eq!(place.lines(), lines([("b", 1), ("a", 2), ("c", 1)]));

        // Likewise at the end of a run; it goes on in the new file, still as the only one.
        journal.append(&failure("b", 3)).unwrap();
        journal.tidy().unwrap();
        assert_eq!(place.lines(), lines([("a", 2), ("c", 1), ("b", 3)]));
        assert_eq!(journal.standing("c", of_size(1)), Standing::Captioned);
        let second = Journal::open(&place.path(), format, &settings());
        assert!(matches!(second, Err(JournalError::Busy { .. })));
        journal.append(&record("d", 4, "x")).unwrap();
        assert_eq!(journal.standing("d", of_size(4)), Standing::Captioned);
        assert_eq!(place.lines().len(), 4);
    }
}

#[test]
fn zeros_of_a_power_cut_are_moved_away_and_the_record_before_them_stays() {
    for format in [Format::Jsonl, Format::Csv] {
        let text = written(format);
        for (n_cut, n_known) in [(0, 3), (1, 3), (40, 2)] {
            let place = Place::new(format);
            place.write([&text.as_bytes()[..text.len() - n_cut], &[0; 512]].concat());
            let mut journal = place.open();
            assert_eq!(journal.n_known(), n_known);
            assert!(journal.take_kept().torn.unwrap().0 >= 512);
            assert!(!place.text().contains('\0'));
            assert_eq!(place.others().len(), 1);
        }
    }
}

#[test]
fn a_link_stays_a_link_and_rights_stay_what_they_are() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new(Format::Jsonl);
    let disk = place.dir.path().join("disk");
    fs::create_dir(&disk).unwrap();
    std::os::unix::fs::symlink(disk.join("real"), place.path()).unwrap();
    drop(place.open());
    assert!(place.path().is_symlink() && !disk.join("real").exists());
    let mut journal = place.open();
    journal.append(&record("a", 1, "x")).unwrap();
    fs::set_permissions(disk.join("real"), fs::Permissions::from_mode(0o640)).unwrap();
    journal.append(&record("a", 2, "x")).unwrap();
    journal.tidy().unwrap();
    drop(journal);
    assert!(place.path().is_symlink());
    let real = disk.join("real").metadata().unwrap();
    assert_eq!(real.permissions().mode() & 0o777, 0o640);
    assert_eq!(place.lines(), [("a".to_owned(), 2)]);
    // Of a file with two names, both go on showing the records.
    fs::hard_link(disk.join("real"), disk.join("name")).unwrap();
    let mut journal = place.open();
    journal.append(&record("a", 3, "y")).unwrap();
    journal.tidy().unwrap();
    drop(journal);
    assert_eq!(
        fs::read(disk.join("name")).unwrap(),
        fs::read(disk.join("real")).unwrap()
    );
    assert_eq!(place.open().standing("a", of_size(3)), Standing::Captioned);
}

#[test]
fn names_of_any_bytes_and_of_any_length_serve() {
    let place = Place::new(Format::Jsonl);
    let long = place.dir.path().join("图".repeat(85));
    for path in ["a\nb", "-", " x ", r"caf\xe9", r"caf\x5cxe9"] {
        let mut journal = Journal::open(&long, Format::Csv, &settings()).unwrap();
        journal.append(&record(path, 1, "x")).unwrap();
        journal.append(&record(path, 2, "y")).unwrap();
        journal.tidy().unwrap();
        assert_eq!(journal.standing(path, of_size(2)), Standing::Captioned);
    }
    let journal = Journal::open(&long, Format::Csv, &settings()).unwrap();
    assert_eq!(journal.n_known(), 5);
    assert!(place.dir.path().join("records.replaced").exists());
}
