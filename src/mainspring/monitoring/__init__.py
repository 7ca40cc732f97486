"""Monitoring: windows of predictions measured against limits, and the incidents that follow."""
