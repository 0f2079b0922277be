"""A folder of pictures: tagged, reviewed, grouped, and what is in it taught."""
