"""A diagnosis from a patient's record: signs at irregular moments, most of them missing most of the time."""
