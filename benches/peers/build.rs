//! Tells the program which compiler it was built with, for its heading.

use std::{env, process::Command};

fn main() {
    let rustc = env::var_os("RUSTC").expect("cargo sets it");
    let told = Command::new(rustc).arg("--version").output();
    let told = told.expect("the compiler runs").stdout;
    let version = String::from_utf8(told).expect("text");
    println!("cargo::rustc-env=BUILT_WITH={}", version.trim());
    println!("cargo::rerun-if-changed=build.rs");
}
