"""Jobs: projects that are packed and handed to what runs them, such as a cluster."""

from distkeras.jobs.engine import Engine, JobError, Status, Submission
from distkeras.jobs.job_file import JobFile, JobFileError, read_job
from distkeras.jobs.pack import Pack, PackError, pack, unpack
from distkeras.jobs.profiles import Config, Profile, ProfileError, read_config

__all__ = [
    "Config",
    "Engine",
    "JobError",
    "JobFile",
    "JobFileError",
    "Pack",
    "PackError",
    "Profile",
    "ProfileError",
    "Status",
    "Submission",
    "pack",
    "read_config",
    "read_job",
    "unpack",
]
