//! What concerns a whole process: each case is this program again, as a child.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails, in its helpers too")]

mod common;

use std::ffi::OsStr;
use std::process::{Command, Output};
use std::sync::{Mutex, OnceLock};

use common::{RESHAPE, SUM, has_library};
use cp_ort::{DYLIB_VARIABLE, OrtError, Session, SessionOptions, Tensor, VARIABLE};
use ndarray::{Array2, arr1};

/// Tells a test that it is the child, and what to do.
const CASE: &str = "POLYAD_ORT_TEST_CASE";

fn child(case: &str, variables: &[(&str, &OsStr)]) -> Output {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "in_a_child", "--nocapture"]).env(CASE, case);
    command.envs(variables.iter().copied()).output().unwrap()
}

/// The child's side.
#[test]
fn in_a_child() {
    match std::env::var(CASE).as_deref() {
        Ok("error") => println!("error: {}", cp_ort::library().unwrap_err()),
        Ok("path") => println!("path: {}", cp_ort::library().unwrap().path().display()),
        Ok("live") => {
            // Statics are never dropped, and the threads of the session wait for work when the process ends.
            static LIVE: OnceLock<Mutex<Session>> = OnceLock::new();
            let options = SessionOptions { threads: 3, ..SessionOptions::default() };
            let live = LIVE.get_or_init(|| Mutex::new(Session::new(SUM, &options).unwrap()));
            let x = Tensor::from(Array2::<f32>::ones((4, 3)).into_dyn());
            let outputs = live.lock().unwrap().run(&[("x", x.clone()), ("w", x)]).unwrap();
            assert!(outputs[0].1.as_f32().unwrap().iter().all(|y| (y - 2.0).abs() < 1e-6));
            println!("it ran");
        }
        Ok("fails") => {
            let options = SessionOptions { threads: 1, ..SessionOptions::default() };
            Session::new(&b"no model"[..], &options).unwrap_err();
            let x = Tensor::from(Array2::<f32>::ones((2, 3)).into_dyn());
            let shape = Tensor::from(arr1(&[5_i64]).into_dyn());
            let mut session = Session::new(RESHAPE, &options).unwrap();
            session.run(&[("x", x), ("s", shape)]).unwrap_err();
        }
        _ => {}
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_variable_that_names_no_library_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let nowhere = folder.path().join("nowhere");
    for variable in [VARIABLE, DYLIB_VARIABLE] {
        // The other names a file, which is not fallen back on.
        let mut variables = vec![(variable, nowhere.as_os_str())];
        let program = std::env::current_exe().unwrap();
        if variable == VARIABLE {
            variables.push((DYLIB_VARIABLE, program.as_os_str()));
        }
        let mut command = Command::new(&program);
        command.args(["--exact", "in_a_child", "--nocapture"]).env(CASE, "error");
        let output = command.env_remove(VARIABLE).envs(variables).output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        let said = text(&output.stdout);
        assert!(said.contains(&format!("{variable}={}", nowhere.display())), "{said}");
    }
}

#[test]
fn a_file_that_is_no_library_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("libonnxruntime.so");
    std::fs::write(&path, "no library").unwrap();
    let output = child("error", &[(VARIABLE, path.as_os_str())]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let said = text(&output.stdout);
    assert!(said.contains("does not load") && said.contains("libonnxruntime.so"), "{said}");
}

/// A copy of the program, away from the workspace: what the loader finds is taken, and the path is where it lies.
#[cfg(target_os = "linux")]
#[test]
fn the_loaders_own_search_is_the_last() {
    if !has_library() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (program, libraries) = (folder.path().join("program"), folder.path().join("libraries"));
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let run = |case: &str| {
        let mut command = Command::new(&program);
        command.args(["--exact", "in_a_child", "--nocapture"]).env(CASE, case);
        command.env_remove(VARIABLE).env_remove(DYLIB_VARIABLE).env("LD_LIBRARY_PATH", &libraries);
        text(&command.output().unwrap().stdout)
    };
    let said = run("error");
    if said.contains("error: ") {
        assert!(said.contains("cargo xtask setup") && said.contains("pip install"), "{said}");
    } else {
        println!("the system has an ONNX Runtime of its own");
    }
    let library = cp_ort::library().unwrap().path().canonicalize().unwrap();
    std::fs::create_dir(&libraries).unwrap();
    std::os::unix::fs::symlink(&library, libraries.join("libonnxruntime.so.1")).unwrap();
    let said = run("path");
    let path = said.split("path: ").nth(1).and_then(|rest| rest.lines().next()).unwrap_or("");
    assert!(std::path::Path::new(path).is_file(), "{said}");
}

#[test]
fn a_process_ends_well_with_a_live_session() {
    if !has_library() {
        return;
    }
    for _ in 0..5 {
        let output = child("live", &[]);
        assert!(output.status.success(), "{:?}: {}", output.status, text(&output.stderr));
        assert!(text(&output.stdout).contains("it ran"));
        assert_eq!(text(&output.stderr), "");
    }
}

#[test]
fn the_librarys_log_stays_off_the_terminal() {
    if !has_library() {
        return;
    }
    let output = child("fails", &[]);
    assert!(output.status.success(), "{:?}", output.status);
    assert_eq!(text(&output.stderr), "");
}

#[test]
fn the_library_says_what_it_is() {
    if !has_library() {
        return;
    }
    let library = cp_ort::library().unwrap();
    assert!(library.version().starts_with("1."), "{}", library.version());
    assert!(library.path().is_file(), "{}", library.path().display());
    println!("ONNX Runtime {} ({})", library.version(), library.path().display());
    assert!(!matches!(cp_ort::library(), Err(OrtError::NotFound { .. })));
}
