"""The pages, one module per room: functions of a workspace that gather the facts of a page."""
