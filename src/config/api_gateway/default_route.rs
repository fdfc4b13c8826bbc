//! The default route settings of a stage, wherever they stand.

use super::{amount::Throttling, block::Block, resolved::resolved};
use crate::{
    config::{Warning, document::Cursor, error::ConfigError},
    limit::limits::Limits,
};

/// The default route settings, collected from all places where a document has them.
#[derive(Debug, Default)]
pub(super) struct DefaultRoute {
    found: Option<DefaultThrottling>,
    /// Settings that do not throttle.
    empty: Vec<String>,
    warnings: Vec<Warning>,
}

/// The settings that throttle, and where they stand.
#[derive(Debug)]
struct DefaultThrottling {
    path: String,
    throttle: Throttling,
    limits: Option<Limits>,
}

impl DefaultRoute {
    /// Returns whether `name` is the word for the default route settings, in any spelling.
    pub(super) fn is_called(name: &str) -> bool {
        let letters = name.chars().filter(|letter| !matches!(letter, '_' | '-'));
        let letters = letters.map(|letter| letter.to_ascii_lowercase());
        letters.eq("defaultroutesettings".chars())
    }

    /// Adds settings that stand where API Gateway takes them. They may be the only item of a list.
    pub(super) fn add(&mut self, settings: &Cursor<'_>) -> Result<(), ConfigError> {
        resolved(settings)?;
        let blocks = settings.each(|block| {
            let Block { throttle, key } = Block::read(block)?;
            match key {
                None => self.add_throttle(throttle, block),
                Some(_) => Err(block.fault("default route settings must not have a route key")),
            }
        })?;
        match blocks.len() {
            0 | 1 => Ok(()),
            _ => Err(settings.fault("default route settings are given twice")),
        }
    }

    /// Adds settings that stand among route settings. Deployed as they are, they would be a bad route key.
    pub(super) fn add_misplaced(&mut self, settings: &Cursor<'_>) -> Result<(), ConfigError> {
        if settings.is_null() {
            return Ok(());
        }
        self.warn_misplaced(settings);
        self.add(settings)
    }

    /// As [`add_misplaced`](Self::add_misplaced), for a block whose route key is the word.
    pub(super) fn add_keyed(&mut self, block: &Cursor<'_>) -> Result<(), ConfigError> {
        self.warn_misplaced(block);
        self.add_throttle(Block::read(block)?.throttle, block)
    }

    fn warn_misplaced(&mut self, settings: &Cursor<'_>) {
        let sentence = "is read as the default route settings; API Gateway expects them beside the route settings, as \
                        `DefaultRouteSettings` of the stage, and refuses them as the key of a route";
        self.warnings.push(Warning::new(settings.path(), sentence));
    }

    fn add_throttle(
        &mut self,
        throttle: Throttling,
        block: &Cursor<'_>,
    ) -> Result<(), ConfigError> {
        match &self.found {
            _ if throttle.is_empty() => self.empty.push(block.path()),
            Some(found) if found.throttle == throttle => {}
            Some(found) => {
                return Err(block.fault(format!(
                    "default route settings differ from those in `{}`; keep one of them",
                    found.path
                )));
            }
            None => {
                self.found = Some(DefaultThrottling {
                    path: block.path(),
                    throttle,
                    limits: throttle.limits(block, &mut self.warnings)?,
                });
            }
        }
        Ok(())
    }

    /// Returns whether no settings were found, not even empty ones.
    pub(super) fn is_missing(&self) -> bool {
        self.found.is_none() && self.empty.is_empty()
    }

    /// The throttle of the settings, if one is set.
    pub(super) fn throttle(&self) -> Option<Throttling> {
        self.found.as_ref().map(|found| found.throttle)
    }

    /// The limits of the settings. Moves the warnings out.
    pub(super) fn limits(&mut self, warnings: &mut Vec<Warning>) -> Option<Limits> {
        warnings.append(&mut self.warnings);
        for path in &self.empty {
            let instead = match &self.found {
                None => "none is set here".to_owned(),
                Some(found) => format!("that of `{}` holds here", found.path),
            };
            warnings.push(Block::without_throttle(path, &instead));
        }
        self.found.as_ref()?.limits.clone()
    }
}
