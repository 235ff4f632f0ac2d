//! On which CPU the threads run that are started from here on.

use crate::Result;

/// The CPUs that this thread may use, to come back to.
pub struct Cpus(#[cfg(target_os = "linux")] rustix::thread::CpuSet);

impl Cpus {
    /// Those of now.
    pub fn current() -> Result<Self> {
        #[cfg(target_os = "linux")]
        return Ok(Self(rustix::thread::sched_getaffinity(None)?));
        #[cfg(not(target_os = "linux"))]
        Ok(Self())
    }

    /// Has this thread, and every thread and process that it starts, use all of them.
    #[cfg(target_os = "linux")]
    pub fn use_all(&self) -> Result<()> {
        Ok(rustix::thread::sched_setaffinity(None, &self.0)?)
    }

    /// Has this thread, and every thread and process that it starts, use the first of them alone.
    #[cfg(target_os = "linux")]
    pub fn use_first(&self) -> Result<()> {
        let first = (0..rustix::thread::CpuSet::MAX_CPU).find(|cpu| self.0.is_set(*cpu)).ok_or("there is no CPU")?;
        let mut one = rustix::thread::CpuSet::new();
        one.set(first);
        Ok(rustix::thread::sched_setaffinity(None, &one)?)
    }

    #[cfg(not(target_os = "linux"))]
    pub fn use_all(&self) -> Result<()> {
        Ok(())
    }

    #[cfg(not(target_os = "linux"))]
    pub fn use_first(&self) -> Result<()> {
        Err("pinning to a CPU works on Linux only; try --unpinned".into())
    }
}
