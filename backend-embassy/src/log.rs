//! What happens to sessions, for people: by `defmt` on a device, by `log` wherever that has been asked for.

macro_rules! info {
    ($text:literal $(, $value:expr)*) => {{
        #[cfg(all(feature = "defmt", target_os = "none"))]
        defmt::info!($text $(, defmt::Display2Format(&$value))*);
        #[cfg(feature = "log")]
        log::info!($text $(, $value)*);
        #[cfg(not(any(feature = "log", all(feature = "defmt", target_os = "none"))))]
        { $(let _ = &$value;)* }
    }};
}

pub(crate) use info;
