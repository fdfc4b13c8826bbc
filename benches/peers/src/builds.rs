//! The cost that each limiter adds to a clean build: crates and seconds.

use std::{
    collections::BTreeSet,
    env,
    error::Error,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio, exit},
    time::Instant,
};

const ROUNDS: usize = 2;

const OURS: &str = "tower-throttle";
const GOVERNOR_BARE: &str = "tower_governor, without default features";

/// A crate that depends on one thing.
struct Project {
    name: &'static str,
    path: PathBuf,
    crates: usize,
    seconds: Vec<f64>,
}

/// Projects of this run; removed when dropped.
struct Directory(PathBuf);

impl Drop for Directory {
    fn drop(&mut self) {
        // What stays behind is under the target directory.
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub fn measure() {
    if let Err(fault) = projects().map(|projects| print(&projects)) {
        eprintln!("build: {fault}");
        exit(1);
    }
}

fn projects() -> Result<Vec<Project>, Box<dyn Error>> {
    let this = env::current_exe()?;
    let target = this.parent().and_then(Path::parent);
    let root = target
        .ok_or("a target directory")?
        .join(format!("builds-{}", std::process::id()));
    let root = Directory(root);
    let library = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let library = library.canonicalize()?;
    let ours = format!("tower-throttle = {{ path = {library:?} }}");
    let dependencies = [
        (OURS, ours.as_str()),
        (
            GOVERNOR_BARE,
            "tower_governor = { version = \"0.8\", default-features = false }",
        ),
        ("tower_governor", "tower_governor = \"0.8\""),
        ("governor", "governor = \"0.10\""),
    ];
    let mut projects = Vec::new();
    for (number, (name, dependency)) in dependencies.into_iter().enumerate() {
        let path = root.0.join(number.to_string());
        projects.push(Project::new(name, path, dependency)?);
    }
    for round in 0..ROUNDS {
        for turn in 0..projects.len() {
            let turn = if round % 2 == 0 {
                turn
            } else {
                projects.len() - 1 - turn
            };
            projects[turn].build()?;
        }
    }
    Ok(projects)
}

fn cargo(path: &Path, arguments: &[&str]) -> Result<String, Box<dyn Error>> {
    let program = env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let output = Command::new(program)
        .args(arguments)
        .current_dir(path)
        .stderr(Stdio::inherit())
        .output()?;
    if !output.status.success() {
        return Err(format!("cargo {arguments:?}: {}", output.status).into());
    }
    Ok(String::from_utf8(output.stdout)?)
}

impl Project {
    fn new(name: &'static str, path: PathBuf, dependency: &str) -> Result<Self, Box<dyn Error>> {
        fs::create_dir_all(path.join("src"))?;
        fs::write(path.join("src/lib.rs"), "")?;
        let manifest = format!(
            "[package]\nname = \"project\"\nedition = \"2024\"\n\n[workspace]\n\n[dependencies]\n{dependency}\n"
        );
        fs::write(path.join("Cargo.toml"), manifest)?;
        cargo(&path, &["fetch", "--quiet"])?;
        let tree = cargo(
            &path,
            &["tree", "--offline", "-e", "normal", "--prefix", "none"],
        )?;
        // A name and a version each; the project itself is none of them.
        let crates: BTreeSet<String> = tree
            .lines()
            .map(|line| line.split(' ').take(2).collect::<Vec<_>>().join(" "))
            .filter(|line| !line.is_empty() && !line.starts_with("project "))
            .collect();
        Ok(Self {
            name,
            path,
            crates: crates.len(),
            seconds: Vec::new(),
        })
    }

    fn build(&mut self) -> Result<(), Box<dyn Error>> {
        let target = self.path.join("target");
        let directory = target.to_str().ok_or("a path that is text")?;
        let arguments = ["build", "--quiet", "--release", "--offline", "--target-dir"];
        let begun = Instant::now();
        cargo(&self.path, &[&arguments[..], &[directory]].concat())?;
        self.seconds.push(begun.elapsed().as_secs_f64());
        fs::remove_dir_all(target)?;
        Ok(())
    }

    /// The seconds of the quickest build: whatever disturbs a build makes it longer.
    fn quickest(&self) -> f64 {
        self.seconds.iter().copied().fold(f64::INFINITY, f64::min)
    }
}

fn print(projects: &[Project]) {
    println!("| clean release build | crates | s, each round |\n|---|---|---|");
    for project in projects {
        let seconds = project.seconds.iter().map(|time| format!("{time:.1}"));
        let seconds = seconds.collect::<Vec<_>>().join(", ");
        println!("| {} | {} | {seconds} |", project.name, project.crates);
    }
    println!("\n| budget | at most | measured | |\n|---|---|---|---|");
    let of = |name: &str| {
        let project = projects.iter().find(|project| project.name == name);
        project.unwrap_or_else(|| panic!("no project is called {name}"))
    };
    let line = |what, most: f64, found: f64| {
        let verdict = if found <= most { "met" } else { "**missed**" };
        println!("| {what} | {most} | {found} | {verdict} |");
    };
    line("crates", 25.0, of(OURS).crates as f64);
    let ratio = of(OURS).quickest() / of(GOVERNOR_BARE).quickest();
    line(
        "seconds, to tower_governor's without default features",
        0.5,
        (ratio * 1_000.0).round() / 1_000.0,
    );
}
