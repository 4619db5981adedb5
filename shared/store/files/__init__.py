"""Files and folders of this machine, as a download needs them."""
