"""The web page of `echocare demo`: files in, findings on the screen, by the engine of `echocare predict`.

`analysis` runs the engine within limits, `pictures` and `panels` make of its answers what the page shows, `page` puts the page together
(Gradio), `command` starts it, `save_space` writes it as a Space.
"""
