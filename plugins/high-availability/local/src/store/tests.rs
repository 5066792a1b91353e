//! The file when the disk is full or broken, when it is damaged, and when it is of another version.

use super::*;
use std::sync::atomic::Ordering;
use thalweg_spi::Happened;
use thalweg_testkit::Place;

fn store(place: &Place) -> (Store, Epoch) {
    let store = Store::open(&Folder::new(place.dir())).unwrap();
    let epoch = store.grant(UnixMillis(1000)).unwrap();
    (store, epoch)
}

fn keys(store: &Store) -> Vec<String> {
    store.ask(&Question::List(String::new())).unwrap().into_iter().map(|(key, _)| key).collect()
}

#[test]
fn a_full_disk_refuses_for_certain_and_takes_writes_again_when_there_is_space() {
    let place = Place::new();
    let (store, epoch) = store(&place);
    store.put(epoch, "before", b"x", Expect::Any).unwrap();
    store.faults.full.store(true, Ordering::SeqCst);
    let large = vec![7; 8 << 20];
    for _ in 0..3 {
        let error = store.put(epoch, "large", &large, Expect::Any).unwrap_err();
        assert_eq!((error.kind(), error.happened()), (ErrorKind::QuotaExceeded, Happened::No), "{error}");
        assert!(error.may_retry());
        assert_eq!(keys(&store), ["before"], "it is read all the same");
    }
    store.put(epoch, "small", b"there is space for this in the file", Expect::Any).unwrap();
    store.faults.full.store(false, Ordering::SeqCst);
    store.put(epoch, "large", &large, Expect::Any).unwrap();
    drop(store);
    let store = Store::open(&Folder::new(place.dir())).unwrap();
    assert_eq!(keys(&store), ["before", "large", "small"]);
}

#[test]
fn a_commit_that_fails_may_have_happened_and_is_old_or_new() {
    let place = Place::new();
    let (store, epoch) = store(&place);
    let mut old = store.put(epoch, "k", b"0", Expect::Any).unwrap();
    for n in 1..10u8 {
        store.faults.broken.store(true, Ordering::SeqCst);
        let error = store.put(epoch, "k", &[n], Expect::Any).unwrap_err();
        assert_eq!((error.kind(), error.happened()), (ErrorKind::QuotaExceeded, Happened::Maybe), "{error}");
        store.faults.broken.store(false, Ordering::SeqCst);
        let found = get_one(&store, "k");
        assert!(found.version == old || found.value[..] == [n], "{found:?}");
        let version = store.put(epoch, "k", &[n], Expect::Version(found.version)).unwrap();
        assert!(version > old);
        old = version;
    }
}

fn get_one(store: &Store, key: &str) -> Versioned {
    store.ask(&Question::Get(key.into())).unwrap().pop().unwrap().1
}

#[test]
fn what_is_too_large_is_refused_by_name() {
    let place = Place::new();
    let (store, epoch) = store(&place);
    let error = store.put(epoch, "k", &vec![0; MAX_VALUE + 1], Expect::Any).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    assert!(error.to_string().contains("67108865 bytes are more than the 67108864"), "{error}");
    assert_eq!(keys(&store), Vec::<String>::new());
}

#[test]
fn a_stored_epoch_fences_a_handle_that_thinks_it_leads() {
    let place = Place::new();
    let (store, old) = store(&place);
    let new = store.grant(UnixMillis(10)).unwrap();
    assert!(new > old);
    let error = store.put(old, "k", b"late", Expect::Any).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fenced, "{error}");
    assert_eq!(store.delete(old, "k", Expect::Any).unwrap_err().kind(), ErrorKind::Fenced);
    assert_eq!(store.highest().unwrap(), new);
}

#[test]
fn another_version_of_the_file_is_refused_and_not_touched() {
    let place = Place::new();
    let (store, epoch) = store(&place);
    store.put(epoch, "k", b"x", Expect::Any).unwrap();
    store.change("test", |numbers, _| Ok(numbers.insert(FORMAT, 2).map(drop)?)).unwrap();
    drop(store);
    let folder = Folder::new(place.dir());
    for _ in 0..2 {
        let error = Store::open(&folder).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains("format 2"), "{error}");
        let error = ask_without_office(&folder, &Question::List(String::new())).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
    }
}

#[test]
fn a_damaged_file_is_told_with_what_to_do_and_never_loses_a_record_silently() {
    let whole = Place::new();
    let (store, epoch) = store(&whole);
    for n in 0..40 {
        store.put(epoch, &format!("jobs/{n:02}"), &vec![n; 3000], Expect::Any).unwrap();
    }
    // As a process that is killed leaves it, and as one that closed it.
    let killed = std::fs::read(whole.dir().join(FILE)).unwrap();
    drop(store);
    let closed = std::fs::read(whole.dir().join(FILE)).unwrap();
    for bytes in [killed, closed] {
        damage_it_everywhere(&bytes, epoch);
    }
}

fn damage_it_everywhere(bytes: &[u8], epoch: Epoch) {
    let mut harmful = 0;
    let mut check = |what: &str, damaged: &[u8]| {
        let place = Place::new();
        std::fs::write(place.dir().join(FILE), damaged).unwrap();
        let folder = Folder::new(place.dir());
        // Who only reads does not look at every checksum; it may see an error or what was there.
        let _ = ask_without_office(&folder, &Question::List(String::new()));
        let opened = Store::open(&folder).and_then(|store| {
            let epoch = store.grant(UnixMillis(0))?;
            store.put(epoch, "new", b"x", Expect::Any)?;
            Ok((epoch, store.ask(&Question::List("jobs/".into()))?))
        });
        match opened {
            Ok((now, found)) => {
                assert!(now > epoch, "{what}: an epoch again");
                assert_eq!(found.len(), 40, "{what}: records are gone");
                assert!(found.iter().enumerate().all(|(n, (_, v))| v.value[..] == vec![n as u8; 3000]), "{what}");
            }
            Err(error) => {
                harmful += 1;
                assert!(matches!(error.kind(), ErrorKind::Damaged | ErrorKind::Unsupported), "{what}: {error}");
                assert!(
                    error.to_string().contains("move it away") || error.to_string().contains("move the file away"),
                    "{error}"
                );
                assert!(error.to_string().contains(FILE), "{error}");
            }
        }
    };
    check("whole", bytes);
    check("empty", &[]);
    check("soup", b"soup");
    check("zeros", &vec![0; bytes.len()]);
    for cut in [1, 100, 4096, bytes.len() / 2, bytes.len() - 1] {
        check(&format!("cut to {cut}"), &bytes[..cut]);
    }
    // A byte in each part of the file, and all of the header.
    for at in (0..400).step_by(5).chain((0..bytes.len()).step_by(bytes.len() / 100)) {
        let mut damaged = bytes.to_vec();
        damaged[at] ^= 0x55;
        check(&format!("byte {at}"), &damaged);
    }
    // A page that was never written.
    for page in (0..bytes.len() / 4096).step_by(5) {
        let mut damaged = bytes.to_vec();
        damaged[page * 4096..(page + 1) * 4096].fill(0);
        check(&format!("page {page}"), &damaged);
    }
    assert!(harmful > 10, "only {harmful} of them did harm");
}

#[test]
fn the_file_is_private_and_born_whole() {
    let place = Place::new();
    std::fs::write(place.dir().join("metadata.new"), "of one that died while it made the file").unwrap();
    let (store, _) = store(&place);
    let mode = std::fs::metadata(place.dir().join(FILE)).unwrap().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(!place.dir().join("metadata.new").exists());
    assert!(store.is_in_place());
    std::fs::remove_file(place.dir().join(FILE)).unwrap();
    assert!(!store.is_in_place());
}
