//! The command line.

use std::env;
use std::path::PathBuf;

use hyper::Uri;
use tower_throttle::rules::Undeclared;

use crate::BoxError;
use crate::stage::{Source, Stage};

pub(crate) const USAGE: &str = "usage: gateway (--stage FILE | --pulumi PROGRAM) --upstream URL
               [--name STAGE] [--undeclared shared|each] [--address HOST:PORT]

  --stage FILE         a stage of API Gateway as the AWS CLI, CloudFormation, SAM, Pulumi or Terraform have it,
                       or rules as TOML, YAML or JSON; `-` reads the standard input
  --pulumi PROGRAM     a Pulumi program in Python, which is run, and again when it changes (by `python3`, or what
                       PYTHON names; it needs the packages pulumi and pulumi-aws)
  --upstream URL       the model server, such as http://127.0.0.1:3000
  --name STAGE         the stage, where there are several
  --undeclared HOW     the limits of the default route, for paths without settings of their own: `shared` by all of
                       them, or `each` method and path its own (default: shared; each, where a Pulumi program selects
                       routes by method and path and declares none)
  --address HOST:PORT  where to listen (default 127.0.0.1:8080, port 0 takes a free one)";

pub(crate) struct Options {
    pub(crate) stage: Stage,
    pub(crate) upstream: Uri,
    pub(crate) address: String,
}

impl Options {
    /// Reads the command line; `None` if it asks for help.
    pub(crate) fn from_arguments() -> Result<Option<Self>, BoxError> {
        let (mut source, mut upstream, mut name, mut undeclared) = (None, None, None, None);
        let mut address = "127.0.0.1:8080".to_owned();
        let mut arguments = env::args().skip(1);
        while let Some(option) = arguments.next() {
            if option == "--help" || option == "-h" {
                return Ok(None);
            }
            let mut value = || {
                let value = arguments.next();
                value.ok_or_else(|| format!("{option}: expected a value\n{USAGE}"))
            };
            match option.as_str() {
                "--stage" => source = Some(document(value()?)?),
                "--pulumi" => source = Some(Source::Program(value()?.into())),
                "--upstream" => upstream = Some(value()?),
                "--name" => name = Some(value()?),
                "--undeclared" => undeclared = Some(how(&value()?)?),
                "--address" => address = value()?,
                _ => return Err(format!("no option `{option}`\n{USAGE}").into()),
            }
        }
        let source = source.ok_or_else(|| format!("--stage or --pulumi is missing\n{USAGE}"))?;
        let upstream = upstream.ok_or_else(|| format!("--upstream is missing\n{USAGE}"))?;
        let uri: Option<Uri> = upstream.parse().ok();
        let uri = uri.filter(|uri| uri.scheme_str() == Some("http") && uri.authority().is_some());
        let uri = uri.ok_or_else(|| {
            format!("--upstream {upstream}: expected a URL such as http://127.0.0.1:3000")
        })?;
        Ok(Some(Self {
            stage: Stage {
                source,
                name,
                undeclared,
            },
            upstream: uri,
            address,
        }))
    }
}

fn document(path: String) -> Result<Source, BoxError> {
    match PathBuf::from(path) {
        path if path.as_os_str() == "-" => Ok(Source::Input),
        path if path.extension().is_some_and(|extension| extension == "py") => Err(format!(
            "{path} is a program, not a document; run it with `--pulumi {path}`, or give `--stage -` what \
             `python3 examples/gateway/pulumi_stages.py {path}` prints",
            path = path.display(),
        )
        .into()),
        path => Ok(Source::Document(path)),
    }
}

fn how(word: &str) -> Result<Undeclared, BoxError> {
    match word {
        "shared" => Ok(Undeclared::Shared),
        "each" => Ok(Undeclared::PerRoute),
        _ => Err(format!("--undeclared {word}: expected `shared` or `each`").into()),
    }
}
