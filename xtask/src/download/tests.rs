use sha2::{Digest as _, Sha256};

use super::*;
use crate::loopback::{Route, Server, curl_is_here};

const CONTENT: &[u8] = b"0123456789abcdefghijklmnopqrstuvwxyz";
// From coreutils' sha256sum of CONTENT.
const SHA256: &str = "74e7e5bb9d22d6db26bf76946d40fff3ea9f0346b884fd0694920fccfad15e33";

/// No test waits.
const AT_ONCE: Patience = Patience { tries: 3, pause: Duration::ZERO };

fn listed(urls: &[&str]) -> Download {
    Download {
        urls: urls.iter().map(|&url| url.to_owned()).collect(),
        path: "x".into(),
        bytes: Some(36),
        sha256: Some(SHA256.into()),
        ..Download::default()
    }
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// Downloads what `server` has under `x`, beginning with `part`; the error's words, or the content.
#[track_caller]
fn get(server: &Server, download: &Download, part: Option<&[u8]>) -> Result<Vec<u8>, String> {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("set/x");
    if let Some(part) = part {
        fs::create_dir(folder.path().join("set")).unwrap();
        fs::write(target.with_added_extension("part"), part).unwrap();
    }
    let done = fetch(download, &target, AT_ONCE);
    assert!(!names(&folder.path().join("set")).contains(&"x.lock".to_owned()));
    match done {
        Ok(()) => {
            assert!(!target.with_added_extension("part").exists());
            Ok(fs::read(&target).unwrap())
        }
        Err(error) => {
            assert!(!target.exists(), "a wrong file was kept");
            let error = format!("{error:#}");
            assert!(error.contains(&server.base), "no address in {error}");
            Err(error)
        }
    }
}

#[test]
fn a_broken_download_goes_on_where_it_stopped() {
    if !curl_is_here() {
        return;
    }
    let server = Server::start();
    let url = server.file("x", CONTENT);
    assert_eq!(get(&server, &listed(&[&url]), Some(&CONTENT[..10])).unwrap(), CONTENT);
    assert_eq!(server.starts("x"), [10]);
    // All of it was there, but for the last step.
    assert_eq!(get(&server, &listed(&[&url]), Some(CONTENT)).unwrap(), CONTENT);
    assert_eq!(server.starts("x"), [10]);
}

#[test]
fn a_cut_connection_is_taken_up_again() {
    if !curl_is_here() {
        return;
    }
    let server = Server::start();
    let cut = |cuts: &[usize]| {
        let cuts = cuts.iter().copied().collect();
        server.put("x", Route { cuts, ..Route::file(CONTENT) })
    };
    let url = cut(&[12, 0, 4]);
    assert_eq!(get(&server, &listed(&[&url]), None).unwrap(), CONTENT);
    assert_eq!(server.starts("x"), [0, 12, 12, 16]);
    // Given up after as many tries in a row that brought nothing; what came is kept for the next call.
    let url = cut(&[12, 0, 0, 0, 0]);
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("x");
    let error = fetch(&listed(&[&url]), &target, AT_ONCE).unwrap_err().to_string();
    assert!(error.contains("12 bytes are kept") && error.contains("way out"), "{error}");
    assert_eq!(fs::read(target.with_added_extension("part")).unwrap(), &CONTENT[..12]);
    fetch(&listed(&[&url]), &target, AT_ONCE).unwrap();
    assert_eq!(fs::read(&target).unwrap(), CONTENT);
}

#[test]
fn servers_without_ranges_and_without_lengths() {
    if !curl_is_here() {
        return;
    }
    let server = Server::start();
    let url = server.put("x", Route { body: CONTENT.into(), ..Route::default() });
    assert_eq!(get(&server, &listed(&[&url]), Some(&CONTENT[..10])).unwrap(), CONTENT);
    let url = server.put("y", Route { no_length: true, ..Route::file(CONTENT) });
    assert_eq!(get(&server, &listed(&[&url]), None).unwrap(), CONTENT);
    // A body that ends early where no length was said: only the sum shows it.
    let short = Route { no_length: true, cuts: [20].into(), ..Route::file(CONTENT) };
    let url = server.put("z", short);
    let error = get(&server, &listed(&[&url]), None).unwrap_err();
    assert!(error.contains("20 bytes in place of 36"), "{error}");
}

#[test]
fn a_wrong_beginning_is_thrown_away() {
    if !curl_is_here() {
        return;
    }
    let server = Server::start();
    let url = server.file("x", CONTENT);
    assert_eq!(get(&server, &listed(&[&url]), Some(b"of another file")).unwrap(), CONTENT);
    assert_eq!(server.starts("x"), [15, 0]);
    let long = [b'x'; 99];
    assert_eq!(get(&server, &listed(&[&url]), Some(&long)).unwrap(), CONTENT);
    // Longer than the file, where its size is not known: the server has nothing behind it.
    let unsized_ = Download { bytes: None, ..listed(&[&url]) };
    assert_eq!(get(&server, &unsized_, Some(&long)).unwrap(), CONTENT);
    assert_eq!(server.starts("x")[3..], [99, 0]);
}

#[test]
fn a_wrong_file_is_refused_with_both_sums() {
    if !curl_is_here() {
        return;
    }
    let server = Server::start();
    let url = server.file("x", CONTENT.to_ascii_uppercase());
    let error = get(&server, &listed(&[&url]), None).unwrap_err();
    assert!(error.contains("SHA-256") && error.contains(SHA256), "{error}");
    let start = |digits: &str| Download {
        sha256: None,
        sha256_prefix: Some(digits.into()),
        ..listed(&[&server.file("y", CONTENT)])
    };
    assert!(get(&server, &start("74e7e5bb"), None).is_ok());
    let error = get(&server, &start("74e7e5bc"), None).unwrap_err();
    assert!(error.contains("in place of 74e7e5bc..."), "{error}");
    let url = server.file("z", [CONTENT, CONTENT].concat());
    let error = get(&server, &listed(&[&url]), None).unwrap_err();
    assert!(error.contains("larger than 36 bytes"), "{error}");
    let url = server.file("short", &CONTENT[..20]);
    let error = get(&server, &listed(&[&url]), None).unwrap_err();
    assert!(error.contains("20 bytes in place of 36"), "{error}");
}

#[test]
fn answers_that_are_errors() {
    if !curl_is_here() {
        return;
    }
    let server = Server::start();
    let gone = format!("{}gone", server.base);
    let error = get(&server, &listed(&[&gone]), None).unwrap_err();
    assert!(error.contains("no such file (HTTP 404)") && error.contains("put it at"), "{error}");
    assert_eq!(server.starts("gone").len(), 1, "asked once");
    let status = |errors: &[u16]| {
        let errors = errors.iter().copied().collect();
        server.put("x", Route { errors, ..Route::file(CONTENT) })
    };
    let error = get(&server, &listed(&[&status(&[403])]), None).unwrap_err();
    assert!(error.contains("refuses it (HTTP 403)"), "{error}");
    // Busy: tried again.
    assert_eq!(get(&server, &listed(&[&status(&[503, 429])]), None).unwrap(), CONTENT);
    let error = get(&server, &listed(&[&status(&[500; 9])]), None).unwrap_err();
    assert!(error.contains("HTTP 500"), "{error}");
    // A page with status 200, whether or not a sum would have shown it.
    let page = "<!doctype html><title>Quota exceeded</title>";
    let url = server.file("page", page);
    let unknown = Download { bytes: None, sha256: None, first_fetch: true, ..listed(&[&url]) };
    for download in [Download { bytes: None, ..listed(&[&url]) }, unknown] {
        let error = get(&server, &download, None).unwrap_err();
        assert!(error.contains("quota exceeded") && error.contains("in a browser"), "{error}");
    }
    // Nobody listens there.
    let closed = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}/x", listener.local_addr().unwrap())
    };
    let folder = tempfile::tempdir().unwrap();
    let error = fetch(&listed(&[&closed]), &folder.path().join("x"), AT_ONCE).unwrap_err();
    assert!(error.to_string().contains("is there a network?"), "{error}");
}

#[test]
fn redirects_and_further_addresses() {
    if !curl_is_here() {
        return;
    }
    let server = Server::start();
    let right = server.file("right", CONTENT);
    let url = server.put("x", Route { to: Some(right.clone()), ..Route::default() });
    assert_eq!(get(&server, &listed(&[&url]), Some(&CONTENT[..5])).unwrap(), CONTENT);
    assert_eq!(server.starts("right"), [5]);
    let around = format!("{}loop", server.base);
    server.put("loop", Route { to: Some(around.clone()), ..Route::default() });
    let error = get(&server, &listed(&[&around]), None).unwrap_err();
    assert!(error.contains("without end"), "{error}");
    let wrong = server.file("wrong", "no such file here");
    assert_eq!(get(&server, &listed(&[&wrong, &around, &right]), None).unwrap(), CONTENT);
}

#[test]
fn the_sum_of_the_first_fetch_is_kept_and_counts() {
    if !curl_is_here() {
        return;
    }
    let server = Server::start();
    let url = server.file("x", CONTENT);
    let unknown = Download { sha256: None, first_fetch: true, ..listed(&[&url]) };
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("x");
    fetch(&unknown, &target, AT_ONCE).unwrap();
    assert_eq!(names(folder.path()), ["x", "x.sha256"]);
    let sum: String = Sha256::digest(CONTENT).iter().map(|b| format!("{b:02x}")).collect();
    let kept = fs::read_to_string(folder.path().join("x.sha256")).unwrap();
    assert_eq!(kept, format!("{sum}  x\n"));
    // Another file of that size at the same address: refused, and the file that was right stays.
    server.file("x", CONTENT.to_ascii_uppercase());
    let error = fetch(&unknown, &target, AT_ONCE).unwrap_err().to_string();
    assert!(error.contains("first fetch") && error.contains("x.sha256"), "{error}");
    assert_eq!(fs::read(&target).unwrap(), CONTENT);
    fs::remove_file(folder.path().join("x.sha256")).unwrap();
    fetch(&unknown, &target, AT_ONCE).unwrap();
    assert_eq!(fs::read(&target).unwrap(), CONTENT.to_ascii_uppercase());
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_and_a_folder_that_cannot_be_written() {
    if !curl_is_here() {
        return;
    }
    let server = Server::start();
    let url = server.file("x", CONTENT);
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("x");
    std::os::unix::fs::symlink("/dev/full", target.with_added_extension("part")).unwrap();
    let error = format!("{:#}", fetch(&listed(&[&url]), &target, AT_ONCE).unwrap_err());
    assert!(error.contains("is the disk full") && error.contains("x.part"), "{error}");
    assert!(error.contains(&url) && error.contains("--data"), "{error}");
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let error = format!("{:#}", fetch(&listed(&[&url]), &file.join("x"), AT_ONCE).unwrap_err());
    assert!(error.contains("file"), "{error}");
}
