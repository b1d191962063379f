"""`echocare predict`: files, DICOM and video in; what the models found, in physical units, as pictures, JSON and DICOM objects, out."""
