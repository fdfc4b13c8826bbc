//! The command line.

use std::env;
use std::path::PathBuf;

use hyper::Uri;

use crate::BoxError;

const USAGE: &str = "usage: gateway --stage FILE --upstream URL [--address HOST:PORT]

  --stage FILE         a stage of API Gateway as the AWS CLI, CloudFormation, SAM, Pulumi or Terraform have it,
                       or rules as TOML, YAML or JSON
  --upstream URL       the model server, such as http://127.0.0.1:3000
  --address HOST:PORT  where to listen (default 127.0.0.1:8080, port 0 takes a free one)";

pub(crate) struct Options {
    pub(crate) stage: PathBuf,
    pub(crate) upstream: Uri,
    pub(crate) address: String,
}

impl Options {
    pub(crate) fn from_arguments() -> Result<Self, BoxError> {
        let (mut stage, mut upstream) = (None, None);
        let mut address = "127.0.0.1:8080".to_owned();
        let mut arguments = env::args().skip(1);
        while let Some(option) = arguments.next() {
            let value = arguments.next().ok_or(USAGE)?;
            match option.as_str() {
                "--stage" => stage = Some(PathBuf::from(value)),
                "--upstream" => upstream = Some(value),
                "--address" => address = value,
                _ => return Err(format!("no option `{option}`\n{USAGE}").into()),
            }
        }
        let upstream = upstream.ok_or(USAGE)?;
        let uri: Uri = upstream.parse()?;
        if uri.scheme_str() != Some("http") || uri.authority().is_none() {
            return Err(format!(
                "--upstream {upstream}: expected a URL such as http://127.0.0.1:3000"
            )
            .into());
        }
        Ok(Self {
            stage: stage.ok_or(USAGE)?,
            upstream: uri,
            address,
        })
    }
}
